"""
The package itself: which core runs and why, @mitogen.main(), what importing costs.
"""

import os
import re
import subprocess
import sys
import sysconfig

import pytest

import mitogen
import mitogen.core
import mitogen.master

VERSION = '.'.join(str(part) for part in mitogen.__version__)
REPLACED = ('Message', 'Latch', 'Receiver', 'Sender', 'Channel', 'Context', 'Router', 'MitogenProtocol', 'Broker')


def run(*args, **env):
    environ = dict(os.environ, **env)
    for name, value in env.items():
        if value is None:
            del environ[name]
    proc = subprocess.run([sys.executable] + list(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environ, timeout=60)
    return proc.returncode, proc.stdout, proc.stderr


def test_a_master_has_these_globals():
    assert mitogen.is_master is True
    assert mitogen.context_id == 0
    assert mitogen.parent_id is None
    assert mitogen.parent_ids == []
    assert isinstance(mitogen.__version__, tuple)


def test_the_build_is_told_by_a_checksum_of_the_sources():
    assert re.match(re.escape(VERSION) + r'\+[0-9a-f]{12}$', mitogen.__build__)


def test_the_core_module_knows_the_package():
    assert mitogen.core.mitogen is mitogen


def test_the_core_is_the_one_asked_for(request):
    asked = request.config.option.core
    assert mitogen.core.CORE in ('native', 'pure')
    if asked in ('native', 'pure'):
        assert mitogen.core.CORE == asked


@pytest.mark.native
def test_the_native_core_replaces_these_classes():
    for name in REPLACED:
        assert not getattr(getattr(mitogen.core, name), '__module__', '').startswith('x/')
    assert 'built-in' in repr(mitogen.core.Latch.put) or 'method' in repr(mitogen.core.Latch.put)
    assert mitogen.core.Latch.put.__class__ is not (lambda: None).__class__


@pytest.mark.native
def test_the_extension_has_the_packages_version():
    import _mitogen_core
    assert _mitogen_core.__version__ == VERSION


@pytest.mark.pure
def test_the_pure_core_is_python_alone():
    assert type(mitogen.core.Latch.put) is type(run)
    assert '_mitogen_core' not in sys.modules


def test_the_report_names_version_and_core():
    status, out, err = run('-m', 'mitogen')
    assert (status, err) == (0, '')
    assert VERSION in out
    assert mitogen.core.CORE in out
    assert sys.executable in out


def test_the_report_says_why_the_pure_core_runs():
    status, out, _ = run('-m', 'mitogen', MITOGEN_CORE='pure')
    assert status == 0
    assert 'pure' in out
    assert 'MITOGEN_CORE' in out


def test_the_report_tells_what_the_build_missed(tmp_path):
    package = tmp_path / 'mitogen'
    package.mkdir()
    for name in os.listdir(os.path.dirname(mitogen.__file__)):
        if name.endswith('.py'):
            os.symlink(os.path.join(os.path.dirname(mitogen.__file__), name), str(package / name))
    report = package / '_build.py'
    if report.exists():
        report.unlink()
    report.write_text("REASON = 'libev was not found. Install it so and so.'\n")
    # -S and -I keep out whatever extension is installed.
    program = 'import sys, runpy; sys.path.insert(0, %r); runpy.run_module("mitogen", run_name="__main__")' % str(tmp_path)
    status, out, err = run('-I', '-S', '-c', program, MITOGEN_CORE=None)
    assert status == 0, err
    assert 'pure' in out
    assert 'libev was not found. Install it so and so.' in ' '.join(out.split())


#: Says which core there is, where no extension can be had.
WITHOUT_EXTENSION = '''
import sys
sys.path.insert(0, %r)

class Refuse(object):
    def find_spec(self, name, path=None, target=None):
        if name == '_mitogen_core':
            raise ImportError('deliberately absent')

sys.meta_path.insert(0, Refuse())
import mitogen.core
print(mitogen.core.CORE)
''' % (os.path.dirname(os.path.dirname(mitogen.__file__)),)


def test_a_core_that_must_be_native_and_is_not_there_is_an_import_error():
    status, out, err = run('-c', WITHOUT_EXTENSION, MITOGEN_CORE='native')
    assert status != 0
    assert 'ImportError' in err
    assert 'deliberately absent' in err


def test_without_the_extension_the_pure_core_runs():
    status, out, err = run('-c', WITHOUT_EXTENSION, MITOGEN_CORE='auto')
    assert (status, out) == (0, 'pure\n'), err


def test_an_extension_that_cannot_be_loaded_is_not_used_and_says_so(tmp_path):
    (tmp_path / ('_mitogen_core' + sysconfig.get_config_var('EXT_SUFFIX'))).write_bytes(b'no library')
    code = 'import mitogen.core; print(mitogen.core.CORE)'
    status, out, err = run('-W', 'error', '-c', code, MITOGEN_CORE='', PYTHONPATH=str(tmp_path))
    assert (status, out) == (0, 'pure\n')
    assert 'the compiled core cannot be loaded, so the pure core is used' in err


def test_an_extension_of_another_version_is_not_used_and_says_so(tmp_path):
    (tmp_path / '_mitogen_core.py').write_text("__version__ = '0.0.1'\n")
    root = os.path.dirname(os.path.dirname(mitogen.__file__))
    program = 'import sys; sys.path[:0] = [%r, %r]; import mitogen.core; print(mitogen.core.CORE)' % (str(tmp_path), root)
    status, out, err = run('-c', program, MITOGEN_CORE=None)
    assert (status, out) == (0, 'pure\n'), err
    # One warning, that tells both versions and the remedy.
    assert err.count('RuntimeWarning:') == 1
    assert all(word in err for word in ('0.0.1', VERSION, 'pure core', 'pip install --force-reinstall')), err
    program = 'import sys; sys.path[:0] = [%r, %r]; import mitogen.core' % (str(tmp_path), root)
    status, out, err = run('-c', program, MITOGEN_CORE='native')
    assert status != 0
    assert '0.0.1' in err
    assert 'RuntimeWarning' not in err


def test_the_report_says_that_the_versions_differ(tmp_path):
    (tmp_path / '_mitogen_core.py').write_text("__version__ = '0.0.1'\n")
    root = os.path.dirname(os.path.dirname(mitogen.__file__))
    program = 'import sys, runpy; sys.path[:0] = [%r, %r]; runpy.run_module("mitogen", run_name="__main__")' % (
        str(tmp_path), root)
    status, out, err = run('-c', program, MITOGEN_CORE=None)
    assert status == 0, err
    assert 'pure' in out
    assert '_mitogen_core is version 0.0.1, and the package is version ' + VERSION in ' '.join(out.split()), out
    assert err.count('RuntimeWarning:') == 1


# ---- main

MAIN = '''
import os
import mitogen

def where():
    return os.getpid(), __name__

@mitogen.main()
def main(router):
    pid, name = router.local().call(where)
    print(pid != os.getpid(), name)
    return 'returned'

if __name__ == '__main__':
    print(main)
'''


def test_a_script_of_one_file_calls_its_own_functions(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(MAIN)
    status, out, err = run(str(script))
    assert status == 0, err
    assert out == 'True __main__\nreturned\n'


def test_main_leaves_functions_of_other_modules_alone():
    def function(router):
        raise AssertionError('must not run')

    assert function.__module__ != '__main__'
    assert mitogen.main()(function) is function


def test_main_shuts_down_when_the_function_raises(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'import mitogen\n'
        '@mitogen.main()\n'
        'def main(router):\n'
        '    router.local()\n'
        '    raise ValueError("deliberate")\n')
    status, out, err = run(str(script))
    assert status == 1
    assert 'ValueError: deliberate' in err


# ---- importing

def test_importing_the_package_starts_nothing():
    program = (
        'import os, threading, mitogen, mitogen.core, mitogen.parent, mitogen.master, mitogen.utils, mitogen.select\n'
        'print(threading.active_count(), len(os.listdir("/proc/self/fd")))\n')
    _, out, _ = run('-c', program)
    _, plain, _ = run('-c', 'import os, threading\nprint(threading.active_count(), len(os.listdir("/proc/self/fd")))\n')
    assert out == plain


def test_importing_the_package_disturbs_no_logger():
    program = (
        'import logging, mitogen.core, mitogen.parent, mitogen.master\n'
        'print([(name, logging.getLogger(name).level, logging.getLogger(name).handlers, logging.getLogger(name).propagate)'
        ' for name in ("", "mitogen", "mitogen.io", "stdout", "stderr")])\n')
    _, out, err = run('-c', program)
    assert out.strip() == str([(name, 30 if not name else 0, [], True) for name in ('', 'mitogen', 'mitogen.io', 'stdout', 'stderr')]), err


def test_a_removed_working_directory_does_not_matter(tmp_path):
    gone = str(tmp_path / 'gone')
    env = {'PYTHONPATH': os.path.dirname(os.path.dirname(mitogen.__file__))}

    def run_there(text):
        os.mkdir(gone)
        return run('-c', 'import os\nos.chdir(%r); os.rmdir(%r)\n%s' % (gone, gone, text), **env)

    if 'SystemError' in run_there('import socket')[2]:
        # 3.13.0 cannot by itself, while the folder is on its path.
        env['PYTHONSAFEPATH'] = '1'
    status, out, err = run_there(
        'import mitogen.master\n'
        'with mitogen.master.Router() as router:\n'
        '    print(router.local().call(os.getpid) > 0)\n')
    assert (status, out) == (0, 'True\n'), err


@pytest.mark.once
@pytest.mark.skipif(sys.version_info < (3, 9), reason='about a master')
def test_the_texts_that_start_children_are_made_when_the_package_is_built(monkeypatch):
    master = mitogen.master
    kept = {key: master._made_before(key) for key in [(True, False), (True, True), (False, True)]}
    minified, = master._made_before(None)
    assert None not in kept.values()
    master._get_core_source()
    monkeypatch.setattr(master, '_core_source', None)
    # A core that was changed since has others.
    full = master._get_full_core_source
    monkeypatch.setattr(master, '_get_full_core_source', lambda: full() + b'\n# changed\n')
    assert master._made_before(None) is master._made_before((True, False)) is None
    monkeypatch.setattr(master, '_get_full_core_source', full)
    monkeypatch.setattr(master, '_made_before', lambda key: None)
    monkeypatch.setattr(master, '_core_source', None)
    assert mitogen.core.to_text(master._get_core_source()) == minified
    for key, texts in kept.items():
        assert list(master._make_reduced(*key)) == texts


@pytest.mark.once
@pytest.mark.skipif(sys.version_info < (3, 9), reason='about a master')
def test_modules_for_children_are_minified_when_the_package_is_built(monkeypatch):
    from mitogen import _core_texts
    master = mitogen.master
    assert {'mitogen._running', 'mitogen._tasks', 'mitogen._files.writer', 'mitogen.parent'} < set(_core_texts.MODULES)
    for name in _core_texts.MODULES:
        source = master.ModuleFinder().get_module_source(name)[1]
        before = master._minified_before(name, source)
        assert before is not None
        # A module that was changed since is minified anew.
        assert master._minified_before(name, source + b'\n# changed\n') is None
        with monkeypatch.context() as patch:
            patch.setattr(master, '_minified_before', lambda name, source: None)
            assert master._minimize(name, name, source) == before
