"""
Modules that cannot be imported: the statement that imports says why, and the context lives on.
"""

import os
import sys

import pytest

from mitogen.core import CallError, ChannelError

import closure_child
import pythons
import testlib


@pytest.fixture
def make(tmp_path, monkeypatch):
    """
    A function that writes files into a new folder that this process imports from.
    """
    folder = tmp_path / 'site'
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(files):
        testlib.write_files(folder, files)
        return folder

    return write


def failure(child, name):
    with pytest.raises(CallError) as e:
        child.call(__import__, name)
    # It lives on.
    assert child.call(eval, '1 + 1') == 2
    return str(e.value)


def test_a_module_of_newer_syntax_fails_with_its_file_and_line(router, make):
    make({'bad_newer.py': 'x = 1\nmatch x:\n    case 1:\n        pass\n', 'bad_user.py': 'import bad_newer\n'})
    child = router.local(python_path=['/usr/bin/env', pythons.find_python('python3.8')])
    for name in 'bad_user', 'bad_newer':
        with pytest.raises(CallError) as e:
            child.call(closure_child.value_in, name, 'x')
        assert 'SyntaxError' in str(e.value)
        assert '(bad_newer.py, line 2)' in str(e.value)
    assert child.call(closure_child.value_in, 'json', '1') == 1


def test_a_module_that_compiles_nowhere_fails_alike(router, make):
    make({'bad_broken.py': 'x = 1\ndef broken(:\n', 'bad_broken_user.py': 'import bad_broken\n'})
    text = failure(router.local(), 'bad_broken_user')
    assert 'SyntaxError' in text and 'bad_broken.py' in text


def test_a_circular_import_says_so(router, make):
    make({'bad_a.py': 'from bad_b import y\nx = 1\n', 'bad_b.py': 'from bad_a import x\ny = 1\n',
          'bad_c.py': 'import bad_d\nx = 1\n', 'bad_d.py': 'import bad_c\n'})
    child = router.local()
    text = failure(child, 'bad_a')
    assert 'ImportError' in text and "cannot import name 'x'" in text
    assert child.call(eval, "__import__('bad_c').x") == 1


@pytest.mark.skipif(not os.path.exists('/proc/self/mem'), reason='for such a file that root cannot read either')
def test_a_file_that_cannot_be_read(router, make):
    make({'bad_user.py': 'try:\n    import bad_unreadable\nexcept ImportError:\n    x = 1\nimport bad_unreadable'})
    (make({}) / 'bad_unreadable.py').symlink_to('/proc/self/mem')
    child = router.local()
    for name in 'bad_unreadable', 'bad_user':
        assert "unable to serve 'bad_unreadable'" in failure(child, name)


def test_a_file_that_is_gone_when_it_is_read(router, make, monkeypatch):
    make({'bad_pkg/__init__.py': '', 'bad_pkg/gone.py': 'x = 1', 'bad_pkg/stays.py': 'x = 2'})
    (make({}) / 'bad_pkg' / 'gone.py').unlink()
    (make({}) / 'bad_pkg' / 'gone.py').symlink_to('/no/such/file')
    child = router.local()
    assert 'bad_pkg.gone' in failure(child, 'bad_pkg.gone')
    assert child.call(eval, "__import__('bad_pkg.stays').stays.x") == 2


def test_a_package_that_changes_during_the_run(router, make):
    folder = make({'bad_changing/__init__.py': 'x = 1\n', 'bad_changing/one.py': 'x = 1\n'})
    assert router.local().call(eval, "__import__('bad_changing.one').one.x") == 1
    (folder / 'bad_changing' / 'one.py').write_text('x = "edited"\n')
    (folder / 'bad_changing' / 'two.py').write_text('x = "new"\n')
    child = router.local()
    assert child.call(eval, "__import__('bad_changing.one').one.x") == 'edited'
    assert child.call(eval, "__import__('bad_changing.two').two.x") == 'new'
    (folder / 'bad_changing' / 'two.py').unlink()
    assert 'bad_changing.two' in failure(router.local(), 'bad_changing.two')


#: Goes on without a parent, and tells a file what became of an import then.
ORPHAN = '''
import os
import mitogen.core

@mitogen.core.takes_econtext
def run(path, econtext):
    econtext.detach()
    try:
        import bad_no_such_module
        text = 'imported'
    except ImportError as e:
        text = '%s: %s' % (type(e).__name__, e)
    with open(path + '~', 'w') as fp:
        fp.write(text)
    os.rename(path + '~', path)
    os._exit(0)
'''


def test_a_link_that_is_cut_during_an_import(router, make, tmp_path):
    make({'bad_orphan.py': ORPHAN})
    path = tmp_path / 'said'
    child = router.local()
    proc = router.stream_by_id(child.context_id).conn.proc
    import bad_orphan
    try:
        with pytest.raises(ChannelError):
            child.call(bad_orphan.run, str(path))
        testlib.wait_for(path.exists)
        assert path.read_text() == "ModuleNotFoundError: the parent was lost before it could serve 'bad_no_such_module'"
        testlib.wait_for(lambda: proc.poll() is not None)
    finally:
        del sys.modules['bad_orphan']


@pytest.mark.parametrize('name', ['python2.7', 'python3.8', 'python3.13'])
def test_a_handler_that_a_configuration_of_logging_names(router, make, name):
    # `dictConfig` has the lock of `logging` while it imports. The child's broker thread logs.
    make(dict(
        [('bad_handler%d.py' % n, 'from bad_base%d import Base as Handler\n' % n) for n in range(2)] +
        [('bad_base%d.py' % n, 'import logging\nclass Base(logging.Handler):\n    pass\n') for n in range(2)],
        **{'bad_configured.py': 'import logging.config\n'
                                'def configure(n, level):\n    logging.config.dictConfig({"version": 1, "handlers": '
                                '{"h": {"class": "bad_handler%d.Handler" % n}}, "loggers": {"mitogen": {"level": level}}})\n'
                                '    return True\n'}))
    child = router.local(python_path=pythons.find_python(name))
    for n, level in enumerate(['DEBUG', 'ERROR']):
        receiver = child.call_async(closure_child.value_in, 'bad_configured', 'configure(%d, %r)' % (n, level))
        # It would wait for ever.
        assert receiver.get(timeout=60).unpickle() is True
