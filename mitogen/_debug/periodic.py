# SPDX-License-Identifier: BSD-3-Clause
"""
Snapshots that are logged again and again, without a signal.
"""

from __future__ import absolute_import  # house

import threading  # house

from mitogen.debug import LOG, get_snapshot  # house


def _dump_forever(secs):
    import time
    while True:
        LOG.info('PERIODIC DUMP\n%s', get_snapshot())
        time.sleep(secs)


def dump_to_logger(secs=5):
    """
    Log a snapshot, now and every `secs` seconds, from a thread of its own.
    """
    thread = threading.Thread(
        name='mitogen.debug.dump_to_logger',
        target=_dump_forever,
        args=(secs,)
    )
    thread.daemon = True
    thread.start()
