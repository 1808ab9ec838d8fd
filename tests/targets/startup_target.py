"""
For children of every version: `eval` lives in a module of another name on Python 2.
"""


def evaluate(text):
    return eval(text)


def on_broker(text):
    """
    Evaluate an expression on the broker thread.
    """
    import mitogen.core
    answer = mitogen.core.Latch()
    broker = mitogen.core.Importer._loader.__self__._router.broker
    broker.defer(lambda: answer.put(eval(text, {'mitogen': mitogen})))
    return answer.get()
