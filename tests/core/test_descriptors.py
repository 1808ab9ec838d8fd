"""
Files, pipes and sockets by descriptor, and calls of the system that are interrupted.
"""

import errno
import os
import select

import pytest

import mitogen.core
from mitogen.core import io_op


class Failing(object):
    """
    Raises some exceptions, one a call, and then returns.
    """

    def __init__(self, errors, result='result'):
        self.errors = list(errors)
        self.result = result
        self.calls = []

    def __call__(self, *args):
        self.calls.append(args)
        if self.errors:
            raise self.errors.pop(0)
        return self.result


# ---- io_op

def test_io_op_returns_the_result():
    function = Failing([])
    assert io_op(function, 1, 2) == ('result', None)
    assert function.calls == [(1, 2)]


@pytest.mark.parametrize('cls', [OSError, IOError, select.error])
def test_io_op_tries_again_when_interrupted(cls):
    function = Failing([cls(errno.EINTR, 'x')] * 3)
    assert io_op(function) == ('result', None)
    assert len(function.calls) == 4


def test_io_op_looks_at_the_first_argument_of_the_error():
    function = Failing([OSError(errno.EINTR)] * 3)
    assert io_op(function) == ('result', None)
    assert len(function.calls) == 4


@pytest.mark.parametrize('number', [errno.EIO, errno.ECONNRESET, errno.EPIPE])
@pytest.mark.parametrize('cls', [OSError, IOError, select.error])
def test_io_op_gives_errors_of_a_disconnect_back(cls, number):
    error = cls(number, 'x')
    assert io_op(Failing([error])) == (None, error)


@pytest.mark.parametrize('number', [errno.EAGAIN, errno.EBADF, errno.ENOENT])
def test_io_op_raises_other_errors(number):
    with pytest.raises(OSError) as caught:
        io_op(Failing([OSError(number, 'x')]))
    assert caught.value.errno == number


def test_io_op_leaves_other_exceptions_alone():
    with pytest.raises(ValueError):
        io_op(Failing([ValueError()]))


# ---- modes

def test_blocking_modes():
    rfp, wfp = mitogen.core.pipe()
    for value in (False, True, False):
        mitogen.core.set_blocking(rfp.fileno(), value)
        assert mitogen.core.get_blocking(rfp.fileno()) is value
    rfp.close()
    wfp.close()


@pytest.mark.parametrize('function', ['pipe', 'socketpair'])
@pytest.mark.parametrize('blocking', [None, True, False])
def test_pipes_and_socket_pairs_have_the_mode_asked_for(function, blocking):
    for fp in getattr(mitogen.core, function)(blocking=blocking):
        if blocking is not None:
            assert mitogen.core.get_blocking(fp.fileno()) is blocking
        fp.close()


def test_a_pipe_is_unbuffered():
    rfp, wfp = mitogen.core.pipe()
    wfp.write(b'x')
    assert os.read(rfp.fileno(), 10) == b'x'
    rfp.close()
    wfp.close()


def test_set_cloexec():
    rfp, wfp = mitogen.core.pipe()
    os.set_inheritable(rfp.fileno(), True)
    mitogen.core.set_cloexec(rfp.fileno())
    assert not os.get_inheritable(rfp.fileno())
    rfp.close()
    wfp.close()


def test_set_cloexec_refuses_the_standard_streams():
    with pytest.raises(AssertionError):
        mitogen.core.set_cloexec(2)
