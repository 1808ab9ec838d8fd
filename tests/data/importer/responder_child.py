"""
Functions that the tests of the responder call in children. Children ask for this file, and it needs nothing more.
"""

import logging
import sys

import mitogen.core


def importable(name):
    """
    Import a module, return what went wrong.
    """
    try:
        __import__(name)
    except Exception as e:
        return type(e).__name__, str(e)
    return None


def loaded_modules(prefix):
    return sorted(name for name in sys.modules if name.startswith(prefix) and sys.modules[name] is not None)


def log(name, level, text, *args):
    logging.getLogger(name).log(level, text, *args)


def say(text):
    print(text)


def max_message_size(econtext):
    return econtext.router.max_message_size


mitogen.core.takes_econtext(max_message_size)
