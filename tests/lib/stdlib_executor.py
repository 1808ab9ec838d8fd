"""
The standard library's own tests of executors, mixed with the executor of a host. They are those of
the Python that imports this; where that was installed without them, ImportError is raised. Nothing
here needs pytest.
"""

import importlib
import unittest

import mitogen


def theirs(file, name):
    """
    Return a class of theirs. From Python 3.12 on, each is in a file of its own.
    """
    package = importlib.import_module('test.test_concurrent_futures')
    return getattr(package, name, None) or getattr(importlib.import_module('%s.%s' % (package.__name__, file)), name)


ExecutorTest = theirs('executor', 'ExecutorTest')
AsCompletedTests = theirs('test_as_completed', 'AsCompletedTests')
WaitTests = theirs('test_wait', 'WaitTests')
ExecutorShutdownTest = theirs('test_shutdown', 'ExecutorShutdownTest')

BY_NAME = 'it starts a program that takes an executor from concurrent.futures by its name, and never sees ours'

#: Tests that do not apply, and why.
SKIPS = {
    'test_map_exception': 'an exception of a host is a RemoteError here: a host does not choose classes of ours',
    'test_no_stale_references': 'it calls a method of an instance, which a host cannot find by a name',
    'test_free_reference': 'it returns an instance of a class that is not registered as a value',
    'test_cancel_futures': 'a call has begun when the host says so, not as soon as it is submitted; ours waits for that',
    'test_interpreter_shutdown': BY_NAME,
    'test_submit_after_interpreter_shutdown': BY_NAME,
    'test_hang_gh83386': BY_NAME,
    'test_hang_issue39205': BY_NAME,
}


def applied(cls):
    """
    Mark the tests of a class that do not apply.
    """
    for name, reason in SKIPS.items():
        if hasattr(cls, name):
            setattr(cls, name, unittest.skip(reason)(getattr(cls, name)))
    return cls


def setUpModule():
    Mixin.tree = mitogen.Tree()
    Mixin.host = Mixin.tree.connect('local:', name='stdlib')


def tearDownModule():
    Mixin.tree.close()


class Mixin:
    """
    The attributes that the standard library's tests use.
    """
    worker_count = 5
    options = {}

    def executor_type(self, max_workers):
        return self.host.executor(max_workers, **self.options)

    def setUp(self):
        self.executor = self.executor_type(self.worker_count)

    def tearDown(self):
        self.executor.shutdown()


@applied
class TestThreads(Mixin, ExecutorTest, AsCompletedTests, WaitTests, ExecutorShutdownTest, unittest.TestCase):
    """
    Workers are threads of a host.
    """


@applied
class TestProcesses(Mixin, ExecutorTest, unittest.TestCase):
    """
    Workers are processes below a host.
    """
    worker_count = 2
    options = {'processes': True}
