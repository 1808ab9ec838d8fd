# SPDX-License-Identifier: BSD-3-Clause
"""
Declarations of a method of a service: its arguments, its policy, and that it
is not answered.
"""

from __future__ import absolute_import  # house

import threading  # house

import mitogen.core  # house


def arg_spec(spec):
    """
    Decorator: before a remote call of the method, check its arguments.

    :param dict spec:
        Name of each required argument -> type, or tuple of types.
    """
    def mark(func):
        func.mitogen_service__arg_spec = spec
        return func
    return mark


def expose(policy):
    """
    Decorator: let other contexts call the method if `policy` agrees. May be
    stacked; then all must agree.

    :param Policy policy:
    """
    def mark(func):
        others = getattr(func, 'mitogen_service__policies', [])
        func.mitogen_service__policies = [policy] + others
        return func
    return mark


def no_reply():
    """
    Decorator: answer nothing to a remote call of the method. A method that
    takes an argument `msg` may still answer that by itself.
    """
    def mark(func):
        func.mitogen_service__no_reply = True
        return func
    return mark


def validate_arg_spec(spec, args):
    """
    Compare arguments with a dict as for :func:`arg_spec`.

    :raises mitogen.core.CallError:
        One is missing, or is of another type.
    """
    for name in spec:
        if name not in args:
            raise mitogen.core.CallError('argument %r is missing', name)
        value = args[name]
        if not isinstance(value, spec[name]):
            raise mitogen.core.CallError(
                'argument %r is of type %r, not %r',
                name, type(value), spec[name])


def get_thread_name():
    """
    Return the name of the current thread.
    """
    return threading.current_thread().name


def func_code(func):
    """
    Return the code object of a function or method.
    """
    return func.__code__


def func_name(func):
    """
    Return the name of a function or method.
    """
    return func.__name__


def _has_parameter(func, name):
    """
    Tell whether a function declares a parameter of that name.
    """
    code = getattr(func, '__code__', None)
    if code is None:
        return False
    count = code.co_argcount + getattr(code, 'co_kwonlyargcount', 0)
    return name in code.co_varnames[:count]
