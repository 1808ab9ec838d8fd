"""
Log records of children: each line shows which context sent it, and no text in it is obeyed by a
terminal.
"""

import io
import logging
import os
import re

import pytest

import mitogen.core
import mitogen.limits
import mitogen.service
import mitogen.utils
from mitogen.core import _printable

import targets
import testlib
from hostile_tree import own_tree as tree, quiet_tree
from liar import FORWARD_LOG, Liar
from test_sizes import Caller

__all__ = ['quiet_tree', 'tree']

#: One of each kind: ends of lines, what a terminal obeys, what turns the direction of writing
#: round, half a character.
EVIL = [u'\n', u'\r', u'\x1b', u'\0', u'\x07', u'\x08', u'\x0b', u'\x0c', u'\x1c', u'\x1d', u'\x1e', u'\x7f', u'\x80', u'\x85',
        u'\x9b', u'\x9f', u'\u061c', u'\u200e', u'\u200f', u'\u2028', u'\u2029', u'\u202a', u'\u202e', u'\u2066', u'\u2069',
        u'\ud800', u'\udfff']

#: In words and scripts of all kinds, with what joins their letters.
HONEST = [u'plain', u'tab\there', u'Gr\xfc\xdfe \u20ac 5', u'\u05e9\u05dc\u05d5\u05dd', u'\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645',
          u'\u0928\u092e\u0938\u094d\u200d\u0924\u0947', u'\u65e5\u672c\u8a9e', u'\U0001f468\u200d\U0001f469\u200d\U0001f467', u'\xa0\xad',
          u'back\\slash \\n', u'']

FORGED = u'12:00:00.000000 E mitogen: the disk is full'


@pytest.fixture
def shown():
    """
    The outputs of three handlers: the one of log_to_file, one of a program that knows nothing of
    us, and one that shows messages only.
    """
    outputs = []
    root = logging.getLogger()
    handlers = []
    for formatter in (mitogen.utils.log_get_formatter(), logging.Formatter('%(levelname)s:%(name)s:%(message)s'),
                      logging.Formatter('%(message)s')):
        output = io.StringIO()
        handler = logging.StreamHandler(output)
        handler.setFormatter(formatter)
        root.addHandler(handler)
        outputs.append(output)
        handlers.append(handler)
    yield outputs
    for handler in handlers:
        root.removeHandler(handler)


def record(name=u'name', level=50, text=u'text'):
    return (u'%s\0%s\0%s' % (name, level, text)).encode('utf-8', 'surrogatepass').decode('latin-1')


def tell(tree, *records):
    tree.liar.tell(*[dict(dst=0, handle=FORWARD_LOG, data=data) for data in records + (record(text=u'the end'),)])
    tree.logs.wait('the end')


def check_lines(shown):
    """
    No line is forged, and none has what a terminal obeys.
    """
    for output in shown:
        for line in re.split(u'[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]', output.getvalue()):
            assert not line.startswith(FORGED), line
            assert not [char for char in EVIL if char in line], line


# ---- the function

@pytest.mark.parametrize('char', EVIL, ids=ascii)
def test_what_a_terminal_would_obey_is_escaped(char):
    assert _printable(u'a%sb' % char) == u'a%sb' % (ascii(char)[1:-1])


@pytest.mark.parametrize('text', HONEST, ids=ascii)
def test_text_of_any_language_stays_as_it_is(text):
    assert _printable(text) == text
    assert _printable(text, u'> ') == text
    assert _printable(text.encode('utf-8')) == text


def test_lines_bear_a_mark_if_there_is_one():
    assert _printable(u'a\nb\n\nc\n', u'> ') == u'a\n> b\n\n> c\n'
    assert _printable(u'a\r\nb', u'> ') == u'a\\r\n> b'


def test_lines_without_end_do_not_make_a_text_much_longer():
    text = _printable(u'x\n' * 100000, u'[a long mark of a context] ')
    assert len(text) < 400000
    assert text.count(u'\n') <= 1000


# ---- records of children

@pytest.mark.parametrize('field', ['name', 'text'])
def test_no_record_of_a_child_looks_like_one_of_the_master(tree, shown, field):
    evil = [u'%s%s' % (char, FORGED) for char in EVIL if char != u'\0']
    tell(tree, *[record(**{field: u'x' + text}) for text in evil])
    check_lines(shown)
    assert all(u'[' in line for line in shown[1].getvalue().splitlines() if u'disk is full' in line)


def test_the_name_of_a_context_is_escaped_as_well(tree, shown):
    if tree.middle:
        return
    tree.liar.context.name = u'x\n%s\x1b[2J' % FORGED
    tell(tree, record(text=u'first\nsecond'))
    check_lines(shown)


def test_a_refused_call_of_a_service_does_not_begin_with_its_callers_words():
    with testlib.LogCapture('mitogen.service') as logs:
        mitogen.service._log_refusal(FORGED, u'x\n', u'not active', None)
        mitogen.service._log_refusal('y', 'z', 'first\n%s' % FORGED, None)
    assert logs.records[0].getMessage() == "context 0: the call of 'x\\n' of '%s' failed: not active" % FORGED
    assert logs.records[1].getMessage() == (
        "context 0: the call of 'z' of 'y' failed: first\n[context 0] %s" % FORGED)


def test_a_traceback_that_the_master_logs_does_not_show_the_words_of_a_child_as_they_are(tree, shown):
    text = u'x\n%s\x1b[2J' % FORGED
    # The name of a class, which the error names.
    data = '\x80\x04\x8c%c%s\x8c\x01y\x93.' % (len(text), text)
    # A handler of a program that reads whatever comes.
    handle = tree.router.add_handler(lambda msg: msg.is_dead or msg.unpickle())
    tree.liar.tell(dict(dst=0, handle=handle, data=data, magic=0x4d4a))
    tree.logs.wait('crashed')
    try:
        raise mitogen.core.CallError(text)
    except mitogen.core.CallError:
        mitogen.core.LOG.exception('failed')
    check_lines(shown)
    assert u'  %s\\x1b[2J' % FORGED in shown[1].getvalue()
    assert shown[1].getvalue().count(u'Traceback') >= 2


def test_a_traceback_of_a_child_is_legible(tree, shown):
    text = u'failed\nTraceback (most recent call last):\n  File "x.py", line 1, in <module>\nValueError: \u05e9'
    tell(tree, record(text=text))
    (found,) = tree.logs.wait('Traceback')
    name = re.search(r'\[.*\]$', found.name).group()
    assert found.getMessage().split(u'\n') == [
        u'failed', name + u' Traceback (most recent call last):', name + u'   File "x.py", line 1, in <module>',
        name + u' ValueError: \u05e9']
    assert u'\n%s   File "x.py", line 1, in <module>\n' % (name,) in shown[0].getvalue()


def test_what_came_is_in_the_attributes_of_a_record(tree):
    tell(tree, record(name=u'a\x1bb', text=u'c\nd\x1b'))
    (found,) = tree.logs.wait('c\n')
    assert found.mitogen_name == u'a\x1bb'
    assert found.mitogen_message == u'c\nd\x1b'
    assert found.mitogen_context.context_id == tree.liar.id
    assert found.name.startswith('a\\x1bb.[')


def test_honest_records_arrive_as_they_are(router):
    child = router.local(name=u'J\xfcrgen')
    with testlib.LogCapture('') as logs:
        for text in HONEST:
            child.call(targets.log, u'x.y', 30, text)
        child.call(targets.log, u'x.y', 30, u'the end')
        logs.wait('the end')
        found = [r for r in logs.records if r.name == u'x.y.[J\xfcrgen]']
    assert [r.getMessage() for r in found[:-1]] == HONEST


def test_what_a_child_prints_cannot_be_forged(router, shown):
    with testlib.LogCapture('') as logs:
        child = router.local(name=u'printer')
        child.call(eval, '__import__("os").write(1, b"a\\x1b[2Jb\\r%s\\xe2\\x80\\xa8%s\\n")' % (FORGED, FORGED))
        logs.wait('a\\x1b[2Jb\\r')
    check_lines(shown)


def test_the_words_of_a_child_that_starts_are_escaped(router, shown):
    with testlib.LogCapture('mitogen', logging.DEBUG) as logs:
        with pytest.raises(mitogen.core.StreamError):
            router.local(python_path=['/bin/sh', '-c', 'printf "a\\033[2Jb\\342\\200\\250%s\\n" ; sleep 0.1' % FORGED])
        assert logs.find('a\\x1b[2Jb')
    check_lines(shown)


# ---- our own handlers

def test_a_log_file_escapes_all_records_and_no_further_line_looks_like_one(tmp_path):
    path = str(tmp_path / 'log')
    levels = {name: logging.getLogger(name).level for name in ('', 'mitogen', 'mitogen.io')}
    mitogen.utils.log_to_file(path, level='DEBUG')
    try:
        logger = logging.getLogger('mitogen.test')
        logger.error('one\n%s', FORGED)
        try:
            raise ValueError('bad\n%s\x1b' % FORGED)
        except ValueError:
            logger.exception('failed')
    finally:
        for handler in logging.getLogger().handlers[:]:
            if hasattr(handler, 'is_mitogen'):
                logging.getLogger().removeHandler(handler)
                handler.close()
        # Records of later tests, of any level, would keep what they are about alive.
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    with open(path) as fp:
        lines = fp.read().splitlines()
    assert [line for line in lines if line[:1].isdigit()] == [lines[0], lines[2]]
    assert lines[1] == u' ' + FORGED
    assert lines[-1] == u' %s\\x1b' % FORGED


def test_a_debug_log_does_the_same():
    handler = mitogen.core.PidfulStreamHandler()
    text = handler.format(logging.makeLogRecord({'msg': u'a\x1b\n' + FORGED}))
    assert text.endswith(u'a\\x1b\n ' + FORGED)


# ---- floods

def test_records_in_a_flood_are_dropped_and_counted(quiet_tree):
    tree = quiet_tree
    tree.router.limits.log_records_per_second = 100
    tree.logs.capture_level = logging.DEBUG
    with Caller(tree.sibling):
        tree.liar.flood(frame=dict(dst=0, handle=FORWARD_LOG, data=record(text=u'flood')), count=6000)
        assert tree.liar.sync()['alive']
        dropped = testlib.wait_for(lambda: sum(
            int(re.search(r'(\d+) log records were dropped', r.getMessage()).group(1))
            for r in tree.logs.find('log records were dropped')))
    emitted = len([r for r in tree.logs.records if getattr(r, 'mitogen_message', None) == u'flood'])
    assert emitted < 6000
    assert dropped > 0
    assert tree.router.stats()['refusals']['log_records_per_second'] >= 1


def test_a_flood_of_bytes_is_dropped(quiet_tree):
    tree = quiet_tree
    tree.router.limits.log_bytes_per_second = 10000
    with Caller(tree.sibling):
        tree.liar.flood(frame=dict(dst=0, handle=FORWARD_LOG, data=record(text=u'x' * 20000)), count=400)
        assert tree.liar.sync()['alive']
        tree.logs.wait('log records were dropped')


def test_another_child_is_heard_meanwhile(router, tmp_path):
    router.limits.log_records_per_second = 10
    liar = Liar(router, tmp_path)
    other = router.local(name=u'other')
    with testlib.LogCapture('', logging.WARNING) as logs:
        liar.flood(frame=dict(dst=0, handle=FORWARD_LOG, data=record(text=u'flood')), count=1000)
        for i in range(10):
            other.call(targets.log, u'x', 50, u'heard %d' % i)
        assert liar.sync()['alive']
        for i in range(10):
            logs.wait('heard %d' % i)
    liar.close()


def test_a_long_record_is_cut(tree):
    tree.router.limits.log_record_bytes = 1000
    tell(tree, record(text=u'begin' + u'x' * 5000))
    (found,) = tree.logs.wait('begin')
    assert len(found.getMessage()) < 1100
    assert found.getMessage().endswith('x [%d more bytes]' % (len(record(text=u'begin' + u'x' * 5000)) - 1000))
