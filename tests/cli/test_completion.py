"""
``mitogen completion``: the texts that shells complete our words by.
"""

import os
import subprocess
import sys

import pytest

import mitogen.command

pytestmark = pytest.mark.once


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / '.ssh').mkdir()
    (tmp_path / '.ssh' / 'config').write_text('Host web1 web2 *\nHost db1\nHost web1\n')
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


def test_the_names_of_hosts(home, capsys):
    assert mitogen.command.main(['completion', 'hosts']) == 0
    assert capsys.readouterr().out == 'web1\nweb2\ndb1\n'


def test_it_says_what_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    assert mitogen.command.main(['completion', 'bash']) == 1
    told = capsys.readouterr()
    assert told.out == '' and 'pip install "mitogen[cli]"' in told.err and len(told.err.splitlines()) == 1


def test_a_shell_that_it_does_not_know(capsys):
    with pytest.raises(SystemExit) as e:
        mitogen.command.main(['completion', 'command.com'])
    assert e.value.code == 2 and 'invalid choice' in capsys.readouterr().err


@pytest.mark.parametrize('shell', ['zsh', 'tcsh', 'fish'])
def test_other_shells(capsys, shell):
    shtab = pytest.importorskip('shtab')
    known = shell in shtab.SUPPORTED_SHELLS
    assert mitogen.command.main(['completion', shell]) == (0 if known else 1)
    out = capsys.readouterr().out
    assert not known or ('doctor' in out and 'mitogen completion hosts' in out)


@pytest.mark.parametrize('words, found', [
    (['do'], {'doctor'}), (['ping', 'w'], {'web1', 'web2'}), (['run', 'web1', '--conn'], {'--connect-timeout'}),
    (['top', '--sort', 'm'], {'memory'}), (['shell', 'd'], {'db1'}), (['cp', 'no'], {'notes'})])
def test_bash_completes(home, tmp_path, words, found):
    pytest.importorskip('shtab')
    (tmp_path / 'notes').write_text('')
    program = tmp_path / 'mitogen'
    program.write_text('#!/bin/sh\nexec "%s" -m mitogen.command "$@"\n' % (sys.executable,))
    program.chmod(0o755)
    script = '''
eval "$(mitogen completion bash)"
COMP_WORDS=(mitogen %s); COMP_CWORD=%d; COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}
way=$(complete -p mitogen | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$way mitogen "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%%s\\n' "${COMPREPLY[@]}"
''' % (' '.join(words), len(words))
    done = subprocess.run(
        ['bash', '-c', script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=str(tmp_path),
        env=dict(os.environ, PATH='%s:%s' % (tmp_path, os.environ['PATH'])))
    assert done.stderr == '' and set(done.stdout.split()) == found
