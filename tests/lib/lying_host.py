"""
Functions that a hostile host may have in place of those of mitogen: they return what nobody asked
for.
"""

import mitogen
import mitogen._links
import mitogen.core

#: It would clear the terminal, and begin a line that reads like one of another host.
LIE = u'a\x1b[2J\nroot | \u202e\x9b'


def facts():
    told = dict.fromkeys(('hostname', 'user', 'python', 'platform'), LIE)
    # The text of an exception is shown as it is.
    return dict(told, executable=mitogen.core.CallError(LIE), core=mitogen.core.Blob(b'\x1b[2J'), pid=[LIE], time=LIE)


def no_facts():
    return {LIE: LIE}


def failing_facts():
    raise ValueError(LIE)


def loop():
    value = []
    value.append(value)
    return value


def many_times():
    value = ()
    for _ in range(60):
        value = (value, value)
    return value


def deep():
    value = ()
    for _ in range(2000):
        value = (value,)
    return value


def long_number():
    return 10 ** 5000


def endless_facts():
    return dict.fromkeys(('hostname', 'user', 'python', 'platform', 'executable', 'core', 'pid', 'time'), many_times())


def list_of_facts():
    return [LIE]


def odd_keys():
    return {(1, 2): LIE}


def heading():
    return u'== web2: ok\nroot\x1b[2J'


def items(*told):
    for item in told:
        yield item


def no_samples(*args):
    yield {u'load': [0.5], u'top': [{u'command': LIE}]}


def sample():
    return {u'load': [0.5], u'cpus': 1, u'processes': 1, u'memory': 1, u'available': 1, u'top': []}


#: The true function, where a test puts the one below in its place.
true_links = mitogen._links.links


@mitogen.core.takes_router
def no_links(router):
    return no_facts() if mitogen.parent_id is not None else true_links(router=router)


@mitogen.core.takes_router
def ask(context_id, handle, router):
    """
    Return the answer to a question for a handle of another context.
    """
    return mitogen.core.Context(router, context_id).send_async(mitogen.core.Message(handle=handle)).get().unpickle()


def stream_without_handle(names, args, kwargs, sender, items, size):
    """
    Stand in for the function that calls a generator, and give no handle for acknowledgements.
    """
    sender.send(LIE)


def no_numbers(*args):
    return [LIE, LIE]


def a_long_text(*args):
    return u'x' * 100000


def many_processors():
    return 10 ** 9
