"""
The driver of a lying child, for a test: each trick of hostile_child.py is a method here. The
handles of a context are numbers, since a lying child packs its frames by hand.
"""

import json
import os
import pickle
import socket
import sys

import places

PROGRAM = os.path.join(places.LIB, 'hostile_child.py')

GET_MODULE, CALL_FUNCTION, FORWARD_LOG, ADD_ROUTE, DEL_ROUTE, ALLOCATE_ID = 100, 101, 102, 103, 104, 105
SHUTDOWN, LOAD_MODULE, FORWARD_MODULE, DETACHING, CALL_SERVICE = 106, 107, 108, 109, 110
GET_RESOURCE, LOAD_RESOURCE, HAVE_MODULES, IS_DEAD = 112, 113, 114, 999

#: Nobody receives there.
NOBODY = 31337


class Liar(object):
    """
    The driver of one lying child. The abilities of hostile_child.py are methods here.
    """
    def __init__(self, router, folder, **kwargs):
        path = os.path.join(str(folder), 'liar')
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(1)
        try:
            self.context = router.local(python_path=[sys.executable, PROGRAM, path], name=u'liar', **kwargs)
            listener.settimeout(60)
            self.sock, _ = listener.accept()
        finally:
            listener.close()
        self.sock.settimeout(100)
        self.lines = self.sock.makefile('rw')
        self.id = self.context.context_id

    def __getattr__(self, name):
        def do(**kwargs):
            self.start(name, **kwargs)
            return json.loads(self.lines.readline())
        return do

    def start(self, name, **kwargs):
        self.lines.write(json.dumps([name, kwargs]) + '\n')
        self.lines.flush()

    def finish(self):
        """
        Return the result of what was started.

        :raises EOFError: the process has ended.
        """
        line = self.lines.readline()
        if not line:
            raise EOFError()
        return json.loads(line)

    def ended(self):
        """
        Wait until the parent ends the stream. Two seconds later it ends the process, too, which may
        be before that has said a word.
        """
        try:
            self.start('ended')
            return self.finish()
        except (ConnectionError, EOFError):
            return True

    def tell(self, *frames):
        """
        Send frames, and wait until the parent has looked at them. Return what it sent meanwhile.
        """
        self.send(frames=list(frames))
        result = self.sync()
        assert result['alive']
        return result['frames']

    def take_ids(self, parent_id):
        """
        Return the first of a block of ids that the parent hands out.
        """
        return pickle.loads(self.ask(handle=ALLOCATE_ID, dst=parent_id).encode('latin-1'))[0]

    def close(self):
        for fp in self.lines, self.sock:
            try:
                fp.close()
            except OSError:
                # The process has ended, and a line to it is still in the buffer.
                pass
