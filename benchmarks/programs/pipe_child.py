"""
The nearest thing to a context that multiprocessing has: a process that runs what comes down a pipe.
"""

import multiprocessing

METHOD = 'spawn'


class PipeChild(object):
    """A child process and this end of a duplex pipe to it.

    method: how the process starts: 'spawn' is a fresh interpreter, which is what the other peers
    start.
    """

    def __init__(self, method=METHOD):
        start = multiprocessing.get_context(method)
        self.conn, theirs = start.Pipe()
        self.process = start.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def post(self, func, *args):
        """Send a request; the answer is to be read with self.conn.recv()."""
        self.conn.send((func, args))

    def call(self, func, *args):
        self.conn.send((func, args))
        return self.conn.recv()

    def close(self):
        self.conn.send(None)
        self.process.join()
        self.conn.close()


def serve(conn):
    """Answer requests until None comes."""
    while True:
        request = conn.recv()
        if request is None:
            return
        func, args = request
        conn.send(func(*args))


def send_many(conn, count, block):
    for _ in range(count):
        conn.send(block)


def serve_flow(conn, block):
    """
    Answer ('out', n) by n messages of block, and ('in', n) by reading n messages and one answer.
    """
    while True:
        request = conn.recv()
        if request is None:
            return
        direction, count = request
        if direction == 'out':
            send_many(conn, count, block)
        else:
            for _ in range(count):
                conn.recv()
            conn.send(count)


class FlowChild(PipeChild):
    """A child for one-way messages of the given block of bytes."""

    def __init__(self, block):
        start = multiprocessing.get_context(METHOD)
        self.conn, theirs = start.Pipe()
        self.process = start.Process(target=serve_flow, args=(theirs, block), daemon=True)
        self.process.start()
        theirs.close()
