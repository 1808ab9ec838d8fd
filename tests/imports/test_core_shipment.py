"""
A target that lacks the package may be sent all of it, with the compiled core.
"""

import glob
import os
import stat
import sys
import tempfile

import pytest

import mitogen.core
import mitogen.master

import pythons
import testlib

CORE = "__import__('mitogen.core').core.CORE"
FOLDER = "__import__('os').path.dirname(__import__('os').path.dirname(__import__('mitogen').__file__))"
PYTHON = ['/usr/bin/env', '-u', 'MITOGEN_CORE', sys.executable]


@pytest.fixture
def shipping(router, monkeypatch):
    """
    A router whose children are sent the package although it is there.
    """
    monkeypatch.setenv('MITOGEN_SHIP', 'core')
    router.ship_core = True
    return router


def test_a_bare_target_runs_the_compiled_core(shipping):
    child = shipping.local(python_path=PYTHON)
    assert child.call(eval, CORE) == 'native'
    folder = child.call(eval, FOLDER)
    assert os.path.basename(folder).startswith('mitogen-freight-')
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    # It is behind all that the target has.
    assert child.call(eval, "__import__('sys').path[-1]") == folder
    child.shutdown(wait=True)
    testlib.wait_for(lambda: not os.path.exists(folder))


def test_the_folder_goes_with_a_child_that_is_killed(shipping):
    child = shipping.local(python_path=PYTHON)
    folder = child.call(eval, FOLDER)
    os.kill(child.call(os.getpid), 9)
    testlib.wait_for(lambda: not os.path.exists(folder))


def test_such_a_child_starts_children_and_gets_modules(shipping, tmp_path, monkeypatch):
    (tmp_path / 'cor_module.py').write_text('value = 7\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    child = shipping.local(python_path=PYTHON)
    below = shipping.local(via=child, python_path=PYTHON)
    for context in child, below:
        assert context.call(eval, "__import__('cor_module').value") == 7


def test_it_says_if_the_pure_core_is_wanted_there(shipping):
    child = shipping.local(python_path=['/usr/bin/env', 'MITOGEN_CORE=pure', sys.executable])
    assert child.call(eval, CORE) == 'pure'


def test_another_python_is_sent_the_pure_core_only(shipping):
    other = 'python3.9' if sys.version_info[:2] != (3, 9) else 'python3.8'
    child = shipping.local(python_path=pythons.find_python(other))
    assert child.call(eval, CORE) == 'pure'
    assert child.call(eval, "getattr(__import__('mitogen').core, '_core_source', None) is not None") is True


def test_nothing_of_it_is_sent_unless_asked_for(router, monkeypatch):
    monkeypatch.setenv('MITOGEN_SHIP', '1')
    assert mitogen.master.Router.ship_core is False
    assert router.local(python_path=PYTHON).call(eval, CORE) == 'pure'


def test_a_folder_that_cannot_be_written_fails_the_connection_and_leaves_nothing(shipping, monkeypatch):
    import mitogen._core_shipment
    entry = mitogen._core_shipment._entry
    monkeypatch.setattr(mitogen._core_shipment, '_partial', None)
    token = 'token%d' % os.getpid()

    def spoilt(path, content, moment):
        if path == 'mitogen/core.py':
            # It cannot be a file, as it is a folder.
            return entry('mitogen/' + token, b'', moment) + entry('mitogen', content, moment)
        return entry(path, content, moment)

    monkeypatch.setattr(mitogen._core_shipment, '_entry', spoilt)
    with pytest.raises(mitogen.core.StreamError):
        shipping.local(python_path=PYTHON)
    monkeypatch.setattr(mitogen._core_shipment, '_partial', None)
    for place in '/dev/shm', tempfile.gettempdir(), '/var/tmp':
        assert not glob.glob(os.path.join(place, '*', 'mitogen', token))
