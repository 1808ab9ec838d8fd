"""
The text of a Secret, and the payload of a message, never reach a log, whatever its level: not when
the message is sent, forwarded, refused, or cannot be read.
"""

import logging
import os

import pytest

import mitogen.core
import mitogen.parent
from mitogen.core import Blob, Message, Secret, StreamError

import targets
import testlib

PASSWORD = u'correct-horse-battery-staple'


@pytest.fixture
def everything():
    """
    All that is logged here or forwarded to here, of every level, and the loggers' own names.
    """
    names = ('', 'mitogen', 'mitogen.io')
    before = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(1)
    try:
        with testlib.LogCapture('', level=1) as logs:
            yield logs
    finally:
        for name, level in zip(names, before):
            logging.getLogger(name).setLevel(level)


def check(logs):
    assert logs.records
    for record in logs.records:
        text = '%s %s %r' % (record.name, record.getMessage(), record.exc_text)
        if record.exc_info:
            text += logging.Formatter().formatException(record.exc_info)
        assert PASSWORD not in text and 'battery' not in text, text


def test_a_call_with_a_secret(everything, router):
    child = router.local(debug=False)
    assert child.call(targets.identity, Secret(PASSWORD)) == PASSWORD
    assert child.call(targets.keywords, password=Secret(PASSWORD), blob=Blob(PASSWORD.encode()))
    child.call_no_reply(targets.keywords, password=Secret(PASSWORD))
    child.call(targets.identity, 1)
    check(everything)


def test_a_secret_that_is_forwarded(everything, router):
    child = router.local()
    grandchild = router.local(via=child)
    assert grandchild.call(targets.identity, Secret(PASSWORD)) == PASSWORD
    check(everything)


def test_a_secret_that_is_refused(everything, router):
    child, sibling = router.local(), router.local()
    for handle in (mitogen.core.CALL_FUNCTION, 31337):
        child.call(targets.send_raw, sibling.context_id, handle, Blob(Message.pickled(Secret(PASSWORD)).data))
    child.call(targets.send_raw, 77777, 5, Blob(PASSWORD.encode()))
    child.call(targets.send_raw, 0, 5, Blob(PASSWORD.encode()), src_id=sibling.context_id)
    router.route(Message(dst_id=77777, handle=5, data=PASSWORD.encode(), reply_to=6))
    everything.wait('bad src_id')
    sibling.call(targets.identity, 1)
    check(everything)


def test_a_secret_beside_what_cannot_be_read(everything):
    import pickle
    bad = pickle.dumps((Secret(PASSWORD), slice(1)), 2)
    for read in (lambda: Message(data=bad).unpickle(), lambda: list(Message(data=bad).unpickle_iter())):
        with pytest.raises((StreamError, pickle.UnpicklingError)):
            read()
    check(everything)


def test_a_password_for_a_connection_that_another_context_makes(everything, router):
    child = router.local()
    with pytest.raises(Exception) as caught:
        router.sudo(via=child, password=PASSWORD, sudo_path=os.devnull, connect_timeout=5)
    assert PASSWORD not in str(caught.value)
    check(everything)


def test_a_secret_in_the_text_of_things():
    msg = Message.pickled(Secret(PASSWORD))
    for thing in (Secret(PASSWORD), [Secret(PASSWORD)], mitogen.core.Kwargs({u'p': Secret(PASSWORD)}), msg,
                  mitogen.parent.CallSpec(targets.identity, (Secret(PASSWORD),), {'p': Secret(PASSWORD)})):
        assert PASSWORD not in repr(thing)
