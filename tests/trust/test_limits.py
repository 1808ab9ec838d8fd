"""
What one peer may take is bounded: the limits of a router, and each by a peer that goes beyond it.
"""

import logging

import pytest

import mitogen.limits

import testlib


# ---- the object

def test_limits_are_those_of_the_router(make_router):
    one, two = make_router(), make_router()
    one.limits.stalled_seconds = 5
    assert one.limits is one.limits is mitogen.limits.of(one)
    assert (one.limits.stalled_seconds, two.limits.stalled_seconds) == (5, mitogen.limits.Limits.stalled_seconds)


def test_a_limit_is_set_by_its_name():
    limits = mitogen.limits.Limits()
    assert limits.stalled_seconds == 120
    for value in 1, 2.5, float('inf'), 0:
        limits.stalled_seconds = value
        assert limits.stalled_seconds == value
    for value in -1, '5', None, float('nan'):
        with pytest.raises(ValueError):
            limits.stalled_seconds = value
    for name in 'no_such_limit', '__class__', '_own':
        with pytest.raises(AttributeError):
            setattr(limits, name, 1)


def test_a_refusal_is_counted_and_logged(router):
    with testlib.Peer(router, 55) as peer, testlib.LogCapture('mitogen.limits', logging.INFO) as logs:
        router.refuse(peer.stream, 'stalled_seconds', '%d things are too many', 7)
        router.refuse(None, 'stalled_seconds', 'all of them')
        texts = [record.getMessage() for record in logs.records]
        assert router.stats()['refusals'] == {'stalled_seconds': 2}
    assert 'peer.55' in texts[0] and '7 things are too many (limits.stalled_seconds is 120.0)' in texts[0]
    assert 'Router' in texts[1] and 'all of them' in texts[1]


def test_many_refusals_are_one_line_a_second(router, monkeypatch):
    with testlib.Peer(router, 55) as one, testlib.Peer(router, 56) as two, \
            testlib.LogCapture('mitogen.limits', logging.INFO) as logs:
        for peer in (one, two) * 50:
            router.refuse(peer.stream, 'stalled_seconds', 'too much')
        assert len(logs.records) == 2
        monkeypatch.setattr(mitogen.limits, 'LOG_INTERVAL', 0)
        router.refuse(one.stream, 'stalled_seconds', 'too much')
        assert 'and 49 more times' in logs.records[-1].getMessage()
        assert router.stats()['refusals'] == {'stalled_seconds': 101}
