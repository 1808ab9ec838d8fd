"""
The lines that functions print on hosts appear here.
"""

import logging
import os
import subprocess
import sys
import threading

import pytest

import mitogen
from mitogen._tree import output

import testlib


def speak(word):
    print(word)
    sys.stderr.write('%s of stderr\n' % (word,))
    subprocess.check_call(['echo', word, 'of', 'echo'])
    os.write(1, b'\x1b[31mred\xff\n')


def test_lines_appear_behind_the_name_of_their_host(capsys):
    with mitogen.Tree() as tree:
        host = tree.connect('local:', name='web')
        host.call(speak, 'one')
        host.connect('local:', name='below').call(speak, 'two')
    # The end of a tree shows the last ones.
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == sorted(
        '[%s] %s' % (name, line) for name, word in (('web', 'one'), ('web.below', 'two'))
        for line in (word, word + ' of echo', '\\x1b[31mred\ufffd'))
    assert err.splitlines() == ['[web] one of stderr', '[web.below] two of stderr']


def test_a_hook_is_given_the_lines_and_may_raise_and_block(capsys):
    given, let_go = [], threading.Event()

    def hook(host, line):
        given.append((host, line, threading.current_thread().name))
        let_go.wait()
        raise SystemExit('from a hook') if line == 'a' else ValueError('from a hook')

    with testlib.LogCapture('mitogen.tree') as logs:
        with mitogen.Tree(output=hook) as tree:
            host = tree.connect('local:', name='web')
            for word in 'ab':
                host.call(print, word)
                # The hook blocks; nobody else does.
            let_go.set()
    assert given == [(host, 'a', 'mitogen.output'), (host, 'b', 'mitogen.output')]
    assert len(logs.find('cannot be shown', logging.ERROR)) == 2
    assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('bound, value', [('WAITING_MAX', 2), ('WAITING_LENGTH', 7)])
def test_what_a_hook_has_no_time_for_is_dropped_and_counted(monkeypatch, bound, value):
    monkeypatch.setattr(output, bound, value)
    given, begun, let_go = [], threading.Event(), threading.Event()

    def hook(host, line):
        begun.set()
        let_go.wait()
        given.append(line)

    with testlib.LogCapture('mitogen.tree') as logs:
        with mitogen.Tree(output=hook) as tree:
            host = tree.connect('local:')
            host.call(print, 'first')
            begun.wait()
            for word in 'abcd':
                host.call(print, word)
            host.close()
            let_go.set()
    # The first one counts until it is shown.
    assert given == ['first', 'a', 'b']
    assert logs.find('2 lines of output were dropped', logging.ERROR)


def test_without_output_lines_are_records_as_of_any_router(capsys):
    with testlib.LogCapture('', level=logging.INFO) as logs:
        with mitogen.Tree(output=None) as tree:
            tree.connect('local:', name='web').call(print, 'hello')
    assert logs.find('hello', logging.INFO)
    assert capsys.readouterr().out == ''
    with pytest.raises(TypeError, match='output'):
        mitogen.Tree(output='loud')
