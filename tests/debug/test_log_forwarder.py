"""
The logs that a master takes from its children.
"""

import logging
import sys

import pytest
import places
import testlib

import mitogen.core


# Known to children by the same name as here.
sys.path.insert(0, places.IMPORTER_DATA)
try:
    import responder_child as child
finally:
    sys.path.remove(places.IMPORTER_DATA)


# The packages in tests/data/importer can be imported.
pytestmark = pytest.mark.usefixtures('importer_data')


def test_a_record_of_a_child(router):
    context = router.local(name='zed')
    with testlib.LogCapture() as logs:
        context.call(child.log, 'x.y', logging.WARNING, 'hello %s', 5)
        record, = logs.wait('hello 5')
    assert (record.name, record.levelno, record.levelname) == ('x.y.[zed]', logging.WARNING, 'WARNING')
    assert (record.msg, record.args, record.exc_info) == ('hello 5', (), None)
    assert (record.pathname, record.lineno) == ('(unknown file)', 0)
    assert (record.mitogen_message, record.mitogen_name) == ('hello 5', 'x.y')
    assert record.mitogen_context == context


def test_what_a_child_prints(router):
    with testlib.LogCapture() as logs:
        router.local(name='zed').call(child.say, 'ding')
        record, = logs.wait('ding', name='stdout.[zed]')
    assert record.levelno == logging.INFO


def forward(router, data):
    """
    Have a record arrive from the context 1234.
    """
    router.broker.defer_sync(
        lambda: router.log_forwarder._on_forward_log(mitogen.core.Message(data=data, src_id=1234)))


def test_a_record_with_odd_bytes(router):
    router.context_by_id(1234, name=u'odd')
    with testlib.LogCapture() as logs:
        forward(router, b'n\x0099\x00a\x00b\xff')
        record, = logs.find(u'a\\x00b\ufffd')
        assert record.mitogen_message == u'a\0b\ufffd'
        assert (record.name, record.levelno) == ('n.[odd]', 99)
        forward(router, b'no level\x00at all')
        forward(router, b'n\x00NaN\x00text')
        assert len([r for r in logs.records if r.name.endswith('.[odd]')]) == 1


def test_records_are_made_by_the_factory(router):
    made = logging.getLogRecordFactory()

    class Record(logging.LogRecord):
        favourite = 'blue'

    logging.setLogRecordFactory(Record)
    try:
        with testlib.LogCapture() as logs:
            forward(router, b'n\x0030\x00hello')
        record, = logs.find('hello')
        assert record.favourite == 'blue'
    finally:
        logging.setLogRecordFactory(made)
