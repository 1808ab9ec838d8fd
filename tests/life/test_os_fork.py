"""
Parking threads.
"""

import pytest

import mitogen.core
import mitogen.master
import mitogen.os_fork


def test_a_corked_broker_does_nothing(broker):
    corker = mitogen.os_fork.Corker(brokers=(broker,))
    corker.cork()
    latch = mitogen.core.Latch()
    broker.defer(latch.put, 123)
    with pytest.raises(mitogen.core.TimeoutError):
        latch.get(timeout=0.5)
    corker.uncork()
    assert latch.get(timeout=60) == 123
    corker.uncork()


def test_a_broker_that_has_ended_is_left_out(broker):
    ended = mitogen.master.Broker()
    ended.shutdown()
    ended.join()
    corker = mitogen.os_fork.Corker(brokers=(ended, broker))
    corker.cork()
    corker.uncork()
    assert broker.defer_sync(lambda: 5) == 5


def test_a_corked_pool_does_nothing(router):
    service = pytest.importorskip('mitogen.service')
    pool = service.Pool(router, services=(), size=4)
    try:
        corker = mitogen.os_fork.Corker(pools=(pool,))
        corker.cork()
        latch = mitogen.core.Latch()
        pool.defer(latch.put, 123)
        with pytest.raises(mitogen.core.TimeoutError):
            latch.get(timeout=0.5)
        corker.uncork()
        assert latch.get(timeout=60) == 123
    finally:
        pool.stop()


def test_a_cycle_over_broker_and_pool(router, broker):
    service = pytest.importorskip('mitogen.service')
    pool = service.Pool(router, services=(), size=2)
    try:
        for _ in range(3):
            corker = mitogen.os_fork.Corker(brokers=(broker,), pools=(pool,))
            corker.cork()
            corker.uncork()
        assert broker.defer_sync(lambda: 5) == 5
    finally:
        pool.stop()
