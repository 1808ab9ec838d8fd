import pytest

from mitogen.service import Pool
from service_targets import Plain


@pytest.fixture
def make_pool(router):
    """
    A function that makes pools on the fixture ``router``; they are stopped after the test.
    """
    pools = []

    def make(*services, **kwargs):
        pool = Pool(router, services=services, **kwargs)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.stop()


@pytest.fixture
def plain(router):
    return Plain(router)
