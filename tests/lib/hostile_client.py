"""
A client that lies: it joins a tree by a UNIX socket as mitogen.unix describes, and then sends what
its driver asks for, as hostile_child.py does.

    python hostile_client.py SOCKET LISTENER

SOCKET is the path at which the driver listens, LISTENER the one at which the tree does.
"""

import os
import socket
import struct
import sys

import hostile_child


def main():
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(sys.argv[2])
    for fd in 0, 1:
        os.dup2(sock.fileno(), fd)
    sock.close()
    os.write(1, struct.pack('>L', os.getpid()))
    own_id, parent_id, _ = struct.unpack('>LLL', hostile_child.read_exactly(12))
    hostile_child.config.update(context_id=own_id, parent_ids=[parent_id])
    os.set_blocking(0, False)
    hostile_child.serve(sys.argv[1])


if __name__ == '__main__':
    main()
