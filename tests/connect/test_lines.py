"""
Protocols of lines, passwords, and the bootstrap protocol.
"""

import logging
import threading
from unittest import mock

import pytest

import mitogen
import mitogen.core
import mitogen.master
import mitogen.parent
from mitogen.parent import Connection

import testlib


class Prompter(mitogen.parent.RegexProtocol):
    def __init__(self):
        super(Prompter, self).__init__()
        self.seen = []

    def _on_hello(self, line, match):
        self.seen.append(('hello', line))

    def _on_prompt(self, line, match):
        self.seen.append(('prompt', line))

    def _on_not_yet(self, line, match):
        self.seen.append(('not yet', line))
        return self.NOT_ANSWERED

    import re
    PATTERNS = [(re.compile(b'hello'), _on_hello), (re.compile(b'h'), None)]
    PARTIAL_PATTERNS = [(re.compile(b'^denied'), _on_not_yet), (re.compile(b'word:'), _on_prompt)]


@pytest.fixture
def prompter():
    stream = Prompter.build_stream()
    return stream.protocol


def feed(protocol, *chunks):
    for chunk in chunks:
        protocol.on_receive(mock.Mock(), chunk)


def test_lines_are_matched_anywhere_and_the_first_pattern_wins(prompter):
    feed(prompter, b'say hel', b'lo now\nmore\n')
    assert prompter.seen == [('hello', b'say hello now')]
    assert [line for _, line in prompter.logged_lines] == [b'say hello now', b'more']


def test_a_prompt_is_answered_once_however_it_arrives(prompter):
    feed(prompter, *[bytes([c]) for c in b'password: '])
    assert prompter.seen == [('prompt', b'password:')]
    feed(prompter, b'\nwrong\npassword: ')
    assert prompter.seen == [('prompt', b'password:'), ('prompt', b'password: ')]


def test_a_prompt_can_be_left_for_later(prompter):
    feed(prompter, b'denied', b'denied word: x')
    assert prompter.seen == [('not yet', b'denied'), ('not yet', b'denieddenied word: x')]


def test_the_last_hundred_lines_and_the_unfinished_one_are_kept(prompter):
    feed(prompter, b''.join(b'%d\n' % i for i in range(150)) + b'tail')
    assert len(prompter.logged_lines) == 100
    assert prompter.logged_lines[0][1] == b'50'
    assert prompter.logged_partial == b'tail'
    stream = mock.Mock(protocol=prompter)
    assert mitogen.parent.get_history([stream]).endswith('149\ntail')


class FakeConnection(object):
    STAGE_SENT = Connection.STAGE_SENT
    _stage_nonce, _ready_nonce = 'ab12', 'cd34'
    completed = 0
    _stage = None

    def _enter_stage(self, stage):
        self.stage = self._stage = stage

    def get_preamble(self):
        return b'long'

    def _get_preamble_for(self, python, func):
        func(b'for %-4.4s' % {0x20712f0: b'2.7.', 0x30b07f0: b'3.11', 0x3060ff0: b'3.6.'}[python])

    def _get_short_preamble(self):
        return b'short'

    def _complete_connection(self):
        self.completed += 1
        self.stream.set_protocol(self.next_protocol)


@pytest.fixture
def bootstrap(monkeypatch):
    monkeypatch.delenv('MITOGEN_SHIP', raising=False)
    stream = mitogen.parent.BootstrapProtocol.build_stream(broker=mock.Mock())
    stream.conn = FakeConnection()
    stream.conn.stream = stream
    stream.conn.next_protocol = mock.Mock()
    stream.protocol._writer = mock.Mock()
    return stream


def written(stream):
    return b''.join(args[0][0] for args in stream.protocol._writer.write.call_args_list)


@pytest.mark.parametrize('line, sent', [
    (b'MITO000 0 20712f0 ab12\n', b'S00000008for 2.7.'),
    (b'MITO000 0 30b07f0 ab12\n', b'S00000008for 3.11'),
    (b'MITO000 1 30b07f0 ab12\n', b'C00000005short'),
    (b'\x1b[0mMITO000 1 30b07f0 ab12\r\n', b'C00000005short'),
    (b'MITO000 1 30b07f0 MITO000 1 30b07f0 MITO000 0 20712f0 ab12\n', b'S00000008for 2.7.'),
])
def test_the_answer_depends_on_what_the_target_has(bootstrap, line, sent):
    feed(bootstrap.protocol, b'banner\nmore of it\n', line)
    assert written(bootstrap) == sent
    assert bootstrap.conn.stage is Connection.STAGE_SENT


@pytest.mark.parametrize('word', ['1', 'yes', 'on', 'True', 'source', 'core'])
def test_shipping_can_be_forced(bootstrap, monkeypatch, word):
    monkeypatch.setenv('MITOGEN_SHIP', word)
    feed(bootstrap.protocol, b'MITO000 1 30b07f0 ab12\n')
    assert written(bootstrap) == b'S00000008for 3.11'


@pytest.mark.parametrize('word', ['', '0', 'no', 'off', 'False'])
def test_a_word_that_means_no_ships_nothing(bootstrap, monkeypatch, word):
    monkeypatch.setenv('MITOGEN_SHIP', word)
    feed(bootstrap.protocol, b'MITO000 1 30b07f0 ab12\n')
    assert written(bootstrap) == b'C00000005short'


def test_an_unknown_word_about_shipping_fails_with_the_name_of_the_variable(monkeypatch):
    threads = threading.active_count()
    monkeypatch.setenv('MITOGEN_SHIP', 'sometimes')
    with pytest.raises(ValueError) as e:
        mitogen.master.Router()
    assert str(e.value) == 'MITOGEN_SHIP is %r, and must be "1" or "0", "source" or "core", or not set' % ('sometimes',)
    assert threading.active_count() == threads


def test_an_unknown_word_about_shipping_fails_a_later_connection(router, monkeypatch):
    monkeypatch.setenv('MITOGEN_SHIP', 'sometimes')
    with pytest.raises(ValueError) as e:
        router.local()
    assert 'MITOGEN_SHIP' in str(e.value)


def test_bytes_after_the_last_marker_go_to_the_next_protocol(bootstrap):
    feed(bootstrap.protocol, b'MITO000 0 3060ff0 ab12\nMITO001\nMITO002 cd34\nframes')
    assert bootstrap.conn.completed == 1
    (_, data), _ = bootstrap.conn.next_protocol.on_receive.call_args
    assert bytes(data) == b'frames'


def test_lines_of_diagnostics_are_logged():
    stream = mitogen.parent.LogProtocol.build_stream()
    stream.name = u'ssh.host'
    with testlib.LogCapture('mitogen.parent') as log:
        feed(stream.protocol, b'one\ntw\xff\nrest')
    assert [(r.levelno, r.getMessage()) for r in log.records if r.levelno == logging.INFO] == [
        (logging.INFO, 'ssh.host: one'), (logging.INFO, u'ssh.host: tw\ufffd')]


def test_a_long_line_of_diagnostics_is_logged_whole():
    # However small the pieces it comes in. A line without any end is logged in parts.
    stream = mitogen.parent.LogProtocol.build_stream()
    stream.name = u'ssh.host'
    line = b''.join(b'%07d ' % i for i in range(10000))
    endless = b''.join(b'%07d ' % i for i in range(mitogen.core.CHUNK_SIZE))
    with testlib.LogCapture('mitogen.parent') as log:
        for data in line, b'\n', endless, b'\n':
            for at in range(0, len(data), 5000):
                feed(stream.protocol, data[at:at + 5000])
                assert len(stream.protocol._trailer) <= stream.protocol.max_tail
    lines = [r.getMessage()[len('ssh.host: '):] for r in log.records if r.levelno == logging.INFO]
    assert lines[0] == line.decode()
    assert ''.join(lines[1:]) == endless.decode()
