"""
The driver of a client of a UNIX socket that lies.
"""

import os
import socket
import subprocess
import sys

import liar
import places
import testlib

PROGRAM = os.path.join(places.LIB, 'hostile_client.py')


class LyingClient(liar.Liar):
    """
    Like a lying child, for a process that joined the tree of a router by the
    socket that it listens at.
    """
    def __init__(self, router, folder, listener_path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as driver:
            path = os.path.join(str(folder), 'client')
            driver.bind(path)
            driver.listen(1)
            driver.settimeout(60)
            self.proc = subprocess.Popen([sys.executable, PROGRAM, path, listener_path])
            self.sock, _ = driver.accept()
        self.sock.settimeout(100)
        self.lines = self.sock.makefile('rw')
        self.id = self.who()['context_id']
        # The listener tells a client its id before it registers the client.
        testlib.wait_for(lambda: router.stream_by_id(self.id))
        self.context = router.context_by_id(self.id)

    def close(self):
        super().close()
        self.proc.wait()
