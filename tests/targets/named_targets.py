"""
Functions whose names may lead to others.
"""

import functools


def identity(value):
    return u'identity', value


class Holder(object):
    @staticmethod
    def identity(value):
        return u'Holder.identity', value

    class Inner(object):
        @classmethod
        def class_method(cls, value):
            return u'Holder.Inner', value

        @staticmethod
        def identity(value):
            return u'Holder.Inner.identity', value


class Inner(object):
    """
    The one that is found if only the last names are looked up.
    """
    @classmethod
    def class_method(cls, value):
        return u'Inner', value


def make_identity():
    def identity(value):
        return u'made', value
    return identity


def shouting(func):
    """
    Return a function that knows the one that it wraps by an attribute, so that it is no closure.
    """
    def wrapper(*args):
        return u'wrapped', wrapped.__wrapped__(*args)
    return functools.update_wrapper(wrapper, func)


def wrapped(value):
    return value


def not_wrapped(value):
    return u'not wrapped', value


wrapped_alone, wrapped = wrapped, shouting(wrapped)
other_wrapper = shouting(not_wrapped)


class Counted(object):
    """
    A decorator that is a class.
    """
    def __init__(self, func):
        functools.update_wrapper(self, func)
        self.func = func

    def __call__(self, *args):
        return u'counted', self.func(*args)


@Counted
def counted(value):
    return value


def renamed(value):
    return u'renamed', value


renamed.__name__ = 'known_as'
known_as = renamed
del renamed


def logged(func):
    @functools.wraps(func)
    def wrapper(*args):
        return u'logged', func(*args)
    return wrapper


@logged
def decorated(value):
    return value


class Decorated(object):
    @staticmethod
    @logged
    def both(value):
        return value


#: Its name leads to the second one, of the same code.
replaced = logged(not_wrapped)
replaced.__name__ = replaced.__qualname__ = 'decorated'
