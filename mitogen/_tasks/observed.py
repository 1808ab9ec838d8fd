# SPDX-License-Identifier: BSD-3-Clause
"""
Observed tasks, on the side that runs them: the function runs inside the context managers of its
tree's observers.

An observer names a function of a module that can be imported here. It is called with the name of
the task and with the text that the observer has sent along, and returns a context manager.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import contextlib

import mitogen.core
from mitogen._tasks import _find
from mitogen.core import takes_econtext


def _managers(econtext, steps):
    """
    Return the context managers of the observers: one for each (names of a function, name of the
    task, headers).
    """
    managers = []
    for names, task, headers in steps:
        make, own = _find(econtext, *names)
        managers.append(make(task, headers, **own))
    return managers


def _within(managers, func):
    if not managers:
        return func()
    with managers[0]:
        return _within(managers[1:], func)


@takes_econtext
def run(steps, names, args, kwargs, econtext):
    """
    Call a function as :class:`mitogen.core.Dispatcher` would, but within the context managers.

    :param steps: see `_managers`.
    :param names: module, class or None, and name of the function.
    """
    func, own = _find(econtext, *names)
    kwargs = dict(kwargs, **own)
    managers = _managers(econtext, steps)
    import inspect
    if getattr(inspect, 'iscoroutinefunction', bool)(func):
        import mitogen._tasks.observed_coroutine
        return mitogen._tasks.observed_coroutine.run(managers, func, args, kwargs)
    return _within(managers, lambda: func(*args, **kwargs))


def _can_span():
    try:
        mitogen.core.import_module('mitogen._tasks.spans')
    except (ImportError, SyntaxError):
        # There is no OpenTelemetry for an old Python.
        return False
    return True


@takes_econtext
def run_carried(task, headers, names, args, kwargs, econtext):
    """
    Call a function that a task of another host calls, as `run` does: in a span of OpenTelemetry,
    where that can be.
    """
    steps = [((u'mitogen._tasks.spans', None, u'within'), task, headers)] if _can_span() else []
    return run(steps, names, args, kwargs, econtext=econtext)


@takes_econtext
def items(steps, names, args, kwargs, econtext):
    """
    Yield what a generator yields, within the context managers.
    """
    func, own = _find(econtext, *names)
    # Streams need a Python that has this.
    with contextlib.ExitStack() as stack:
        for manager in _managers(econtext, steps):
            stack.enter_context(manager)
        iterator = iter(func(*args, **dict(kwargs, **own)))
        try:
            for item in iterator:
                yield item
        finally:
            close = getattr(iterator, 'close', None)
            if close:
                close()
