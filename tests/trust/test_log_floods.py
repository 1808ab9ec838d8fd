"""
A child that sends nothing but what is refused, or cannot be read, has few lines in the log of its
parent.
"""

import collections
import logging

import pytest

import mitogen.core
import mitogen.master
import mitogen.service

import hostile_services
import targets
import testlib
from liar import (ADD_ROUTE, ALLOCATE_ID, CALL_FUNCTION, CALL_SERVICE, DEL_ROUTE, DETACHING, FORWARD_LOG, FORWARD_MODULE,
                  GET_MODULE, GET_RESOURCE, HAVE_MODULES, Liar, LOAD_MODULE, LOAD_RESOURCE, NOBODY, SHUTDOWN)

COUNT = 3000
#: Lines of the log that are about one peer and one subject, in a second. Most have 20, routes
#: have 50.
MOST = 60

NAMES = b'\x80\x02X\x17\x00\x00\x00hostile_services.OffersX\x05\x00\x00\x00small'.decode('latin-1')

FRAMES = {
    'the authority of the master': dict(handle=FORWARD_LOG, auth=0, data='a'),
    'the name of another': dict(handle=FORWARD_LOG, src=12345, data='a'),
    'nobody': dict(handle=NOBODY, reply_to=5),
    'no context': dict(dst=4000000, handle=NOBODY, reply_to=5),
    'a call': dict(handle=CALL_FUNCTION, data='x'),
    'a call of a service that is cut': dict(handle=CALL_SERVICE, data=NAMES + '\xff'),
    'a call of no service': dict(handle=CALL_SERVICE, data='\xff' * 10),
    'nothing for a service': dict(handle=CALL_SERVICE, data=''),
    'a route': dict(handle=ADD_ROUTE, data='77:x'),
    'no route': dict(handle=ADD_ROUTE, data='\xff'),
    'the end of a route': dict(handle=DEL_ROUTE, data='0:x'),
    'ids': dict(handle=ALLOCATE_ID, data='x' * 10),
    'its end': dict(handle=DETACHING, data='x'),
    'the end of its parent': dict(handle=SHUTDOWN, data='x'),
    'a module': dict(handle=GET_MODULE, data='no_such_module'),
    'a module that it has': dict(handle=GET_MODULE, data='targets'),
    'a long name of a module': dict(handle=GET_MODULE, data='x' * 10001),
    'no resource': dict(handle=GET_RESOURCE, data='\xff'),
    'a resource of no package': dict(handle=GET_RESOURCE, data='\x80\x02(X\x01\x00\x00\x00aX\x01\x00\x00\x00bt.'),
    'no modules': dict(handle=HAVE_MODULES, data='\xff'),
    'code': dict(handle=LOAD_MODULE, data='\xff'),
    'content': dict(handle=LOAD_RESOURCE, data='\xff'),
    'code of others': dict(handle=FORWARD_MODULE, data='\xff'),
    'nothing for nobody': dict(handle=0, data=''),
}


class Cast(object):
    def __init__(self, router, folder):
        self.router = router
        self.pool = mitogen.service.Pool(router, services=[hostile_services.Offers(router)], size=1)
        self.sibling = router.local(name=u'sibling')
        self.liar = Liar(router, folder)


@pytest.fixture(scope='module')
def cast(tmp_path_factory):
    router = mitogen.master.Router(mitogen.master.Broker())
    cast = Cast(router, tmp_path_factory.mktemp('liar'))
    yield cast
    cast.liar.close()
    cast.pool.stop()
    router.broker.shutdown()
    router.broker.join()


@pytest.mark.parametrize('kind', sorted(FRAMES))
def test_what_is_refused_again_and_again_is_told_a_few_times(cast, monkeypatch, kind):
    # A second that has no end.
    monkeypatch.setattr(mitogen.core, '_LOG_INTERVAL', 1e9)
    for about in cast.router, cast.router.stream_by_id(cast.liar.id), cast.router.route_monitor:
        monkeypatch.setattr(about, '_logged_at', {}, raising=False)
    with testlib.LogCapture('', logging.INFO) as logs:
        assert cast.liar.flood(frame=dict(dict(dst=0, magic=0x4d4a), **FRAMES[kind]), count=COUNT)
        assert cast.liar.sync()['alive']
        assert cast.sibling.call(targets.identity, 1) == 1
        # All calls have been obeyed.
        assert cast.router.myself().call_service(hostile_services.Offers, 'small') == 'small'
    told = collections.Counter((record.name, str(record.msg)) for record in logs.records)
    # Some of these may be of what was sent before, and is still being looked at.
    assert not told or max(told.values()) <= MOST, told.most_common(5)


@pytest.mark.native
def test_how_many_refusals_were_left_out_is_one_line_in_a_second(monkeypatch):
    import mitogen._native as events
    monkeypatch.setattr(events, '_unlogged', events._Unlogged())
    monkeypatch.setattr(mitogen.core, '_LOG_INTERVAL', 1e9)
    header = 0, 0, 0, NOBODY, 5, 0
    with testlib.LogCapture('mitogen', logging.INFO) as logs:
        for lost in 2, 3, 0, 4:
            events._on_refused(0, header, None, None, lost, (0, 0, 0))
        monkeypatch.setattr(mitogen.core, '_LOG_INTERVAL', 0)
        events._on_refused(0, header, None, None, 1, (0, 0, 0))
    counts = [record.args[0] for record in logs.records if 'were not logged' in record.msg]
    assert counts == [2, 8]
