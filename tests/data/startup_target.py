"""
For children of every version: `eval` lives in a module of another name on Python 2.
"""


def evaluate(text):
    return eval(text)
