"""
Random messages of a lying peer: rows of steps for tests/lib/hostile_child.py, as plain data.
"""

import array
import pickle
import sys

import codec_fuzz

import mitogen.core
from mitogen.core import Context, Kwargs, Message, Sender

GET_MODULE, CALL_FUNCTION, FORWARD_LOG, ADD_ROUTE, DEL_ROUTE, ALLOCATE_ID = 100, 101, 102, 103, 104, 105
SHUTDOWN, LOAD_MODULE, FORWARD_MODULE, DETACHING, CALL_SERVICE = 106, 107, 108, 109, 110
GET_RESOURCE, LOAD_RESOURCE, HAVE_MODULES, CALL_AT_ONCE = 112, 113, 114, 130

#: Frames whose payload is as it is, and pickles.
RAW, PICKLE, BLOB = 0x4d49, 0x4d4a, 0x4d4b

#: In each line that a peer has the master log, for the one who looks for forged lines. Nothing with
#: a bracket is near.
FORGED = u'00:00:00.000000 E mitogen: forged by somebody'

#: Characters that a terminal obeys, or that end a line.
EVIL = u'\n\r\x0b\x0c\x1b\x1c\x85\x9b\u200f\u202e\u2028\u2029\u2066\x07\x08\0'

#: Sizes at which something changes: a header, a page, the limits of requests, of chunks and of
#: pipes.
EDGES = (0, 1, 27, 28, 29, 4095, 4096, 4097, 8191, 8192, 8193, 9999, 10000, 10001, 65535, 65536, 131072, 1 << 20)

#: How many of the ids that a peer was handed it announces: it may do so once for each.
ANNOUNCED = 50

#: Handles that take orders, from contexts with authority only. A client of a UNIX socket has
#: authority.
ORDERS = (CALL_FUNCTION, CALL_AT_ONCE, SHUTDOWN, LOAD_MODULE, FORWARD_MODULE, DETACHING, CALL_SERVICE, LOAD_RESOURCE, 111)


def text(data):
    return data.decode('latin-1')


def pickled(value):
    return text(bytes(Message.pickled(value).data))


class Grammar(object):
    """
    Makes steps for one peer of a world. `rng` decides, and nothing else: the same seed makes the
    same steps.
    """
    def __init__(self, rng, world, peer):
        self.rng = rng
        self.world = world
        self.peer = peer
        self.corpus = [codec_fuzz.generate(rng) for _ in range(5)]

    # ---- words

    def some_id(self):
        peer, world = self.peer, self.world
        handed = peer.first_id + self.rng.randrange(ANNOUNCED)
        return self.rng.choice(
            [peer.id] * 3 + world.honest_ids() + [other.id for other in world.peers] +
            [handed, peer.first_id + 999, peer.first_id + 1000, 0, world.next_id(), world.next_id() + 1, 77777, 2 ** 31,
             2 ** 32 - 1])

    def some_handle(self):
        return self.rng.choice((
            GET_MODULE, FORWARD_LOG, ADD_ROUTE, DEL_ROUTE, ALLOCATE_ID, GET_RESOURCE, HAVE_MODULES) + ORDERS +
            tuple(self.world.task_handles) + (0, 1, 999, 1000, 2 ** 31, 2 ** 32 - 1, self.world.next_handle(self.rng.randrange(20))))

    def some_text(self):
        words = [self.rng.choice((u'x', u'disk', u'\u05e9', self.rng.choice(EVIL), self.rng.choice(EVIL) + FORGED))
                 for _ in range(self.rng.randrange(1, 8))]
        return u''.join(words)

    def some_bytes(self):
        kind = self.rng.randrange(6)
        if kind == 0:
            return u''
        if kind == 1:
            return u'x' * (self.rng.choice(EDGES) + self.rng.choice((-1, 0, 0, 1)))
        if kind == 2:
            return text(codec_fuzz.generate(self.rng))
        if kind == 3:
            return text(codec_fuzz.mutate(self.rng, self.rng.choice(self.corpus), self.corpus))
        if kind == 4:
            return text(self.some_text().encode('utf-8'))
        return u'%d:%s' % (self.some_id(), u'liar')

    def some_value(self):
        return self.rng.choice((
            lambda: None, lambda: self.some_text(), lambda: self.some_id(), lambda: (u'forged', self.some_id()),
            lambda: Context(None, self.some_id(), u'liar'),
            lambda: Sender(Context(None, self.some_id()), self.some_handle()),
            lambda: [Context(None, 10 ** 6 + self.rng.randrange(10 ** 6), u'x') for _ in range(50)],
            lambda: dict((u'%d' % i, i) for i in range(100)), lambda: array.array('i', [1, 2]),
            lambda: [memoryview(b'x' * self.rng.randrange(100))] * 50, lambda: mitogen.core.CallError(self.some_text())))()

    def some_pickle(self):
        if self.rng.random() < 0.3:
            return self.some_bytes()
        data = pickled(self.some_value())
        if self.rng.random() < 0.1:
            data = text(b'\x80\x02' + self.rng.choice(codec_fuzz.BUFFERS + codec_fuzz.NO_BUFFERS) + b'.')
        if self.rng.random() < 0.3:
            return text(codec_fuzz.mutate(self.rng, data.encode('latin-1'), self.corpus))
        return data

    # ---- frames that make sense

    def frame(self, handle, data=u'', **fields):
        fields.setdefault('dst', self.peer.parent_id if self.rng.random() < 0.7 else 0)
        fields.setdefault('reply_to', self.rng.choice((0, 5, 5, 6)))
        return dict(fields, handle=handle, data=data)

    def get_module(self):
        name = self.rng.choice((
            u'whole_tree', u'os', u'mitogen.service', u'mitogen.master', u'json.decoder', u'pkg_resources', u'a.b.c',
            u'', u'\xff', u'\0', u'a..b', u'.' * 900, u'no.%d' % self.rng.randrange(10 ** 6),
            u'x' * self.rng.choice((100, 8192, 10001)), self.some_text()))
        return self.frame(GET_MODULE, text(name.encode('utf-8')))

    def have_modules(self):
        """
        Make what a child says of its interpreter and its modules. Those of a child that runs our
        bytecode are others.
        """
        version = self.rng.choice((sys.version, sys.version, u'2.7.18 (x)', u'3.4.2 [PyPy 7.3]', u'', self.some_text()))
        names = self.rng.choice(((), (u'os.py', u'json', u'mitogen'), [u'n%d' % i for i in range(5000)],
                                 [self.some_text() for _ in range(5)]))
        data = self.rng.choice((repr([version] + list(names)), self.some_bytes()))
        return self.frame(HAVE_MODULES, text(data.encode('utf-8')), reply_to=self.rng.choice((0, 0, 5)))

    def cancel(self):
        """
        Make what would cancel a task of somebody honest, or end his child, if it came from above.
        """
        handle, value = self.rng.choice((
            (0, (self.world.next_handle(self.rng.randrange(-5, 30)), 0, False)), (0, self.some_value()),
            (1, self.some_id()), (1, self.some_value())))
        handles = self.world.task_handles or (5, 6)
        return self.frame(handles[handle], pickled(value), dst=self.rng.choice(self.world.honest_ids()), magic=PICKLE)

    def get_resource(self):
        value = self.rng.choice((
            array.array('b', [1]), (u'mitogen', u'core.py'), (u'mitogen', u'../../etc/passwd'), (u'mitogen', u'a/' * 3000), (u'os', u''),
            (u'whole_tree', u'\0source'), (u'mitogen', u'core.late'), (u'x', u'y'), 5, (1, 2),
            (self.some_text(), self.some_text())))
        return self.frame(GET_RESOURCE, pickled(value), magic=PICKLE)

    def add_route(self):
        return self.frame(ADD_ROUTE, u'%d:%s' % (self.some_id(), self.rng.choice(
            (u'liar', u'', u'honest', text(self.some_text().encode('utf-8'))))))

    def del_route(self):
        return self.frame(DEL_ROUTE, u'%d' % self.some_id())

    def allocate_id(self):
        return self.frame(ALLOCATE_ID, self.rng.choice((u'', u'', self.some_bytes())))

    def forward_log(self):
        data = u'%s\0%s\0%s' % (
            self.rng.choice((u'root', u'mitogen', u'a.b', u'', u'n%d' % self.rng.randrange(200), self.some_text())),
            self.rng.choice((u'10', u'40', u'50', u'40', u'-1', u'x', u'1' * 30)), self.some_text())
        return self.frame(FORWARD_LOG, text(data.encode('utf-8')), dst=0)

    def call_service(self):
        service, method = self.rng.choice((
            (u'whole_tree.Desk', u'receipt'), (u'whole_tree.Desk', u'large'), (u'whole_tree.Desk', u'large'),
            (u'whole_tree.Desk', u'order'), (u'whole_tree.Desk', u'orders'), (u'whole_tree.Desk', u'__init__'),
            (u'os', u'system'), (u'', u''), (self.some_text(), u'x'), (5, 6)))
        if self.peer.has_authority and method == u'order':
            method = u'receipt'
        kwargs = self.rng.choice((
            Kwargs({}), Kwargs({u'token': u'forged'}), Kwargs({u'x': self.some_value()}), None, 5))
        return self.frame(CALL_SERVICE, pickled((service, method, kwargs)), magic=PICKLE, dst=0)

    def file_call(self):
        number = self.peer.id if self.rng.random() < 0.6 else self.some_id()
        sender = Sender(Context(None, number), self.rng.choice((77, 78, self.some_handle())))
        method, kwargs = self.rng.choice((
            (u'fetch', dict(path=self.some_path(), sender=sender)),
            (u'fetch', dict(path=self.some_path(), sender=sender)),
            (u'acknowledge', dict(size=self.rng.choice((0, 1, 131072, -1, 2 ** 40, u'x')))),
            (u'abandon', dict(handle=self.rng.choice((77, 78, 79, u'x')))),
            (u'register', dict(path=u'/etc/passwd')), (u'register_prefix', dict(path=u'/'))))
        if self.peer.has_authority and method.startswith(u'register'):
            method, kwargs = u'acknowledge', dict(size=1)
        data = pickled((u'mitogen.service.FileService', method, Kwargs(kwargs)))
        return self.frame(CALL_SERVICE, data, magic=PICKLE, dst=0)

    def some_path(self):
        folder = u'' + self.world.folder
        return self.rng.choice((
            folder + u'/open/file', folder + u'/open/file', folder + u'/open/link/secret',
            folder + u'/open/../secret/secret',
            folder + u'/open/absent', folder + u'/open', folder + u'/secret/secret', u'/etc/passwd', u'', u'/' * 5000,
            folder + u'/open' + u'/.' * 200 + u'/file', self.some_text()))

    def order(self):
        """
        Make an order that its recipient would obey, and note, if it came from a parent.
        """
        dst = self.some_id()
        call = (None, u'whole_tree', None, u'note', (u'by %d' % self.peer.id,), Kwargs({}))
        handle = self.rng.choice((CALL_FUNCTION, CALL_FUNCTION, CALL_AT_ONCE, CALL_AT_ONCE, SHUTDOWN, LOAD_MODULE, FORWARD_MODULE, CALL_SERVICE,
                                  LOAD_RESOURCE))
        data = self.rng.choice((pickled(call), pickled((u'whole_tree', None, None, None, ())), self.some_pickle()))
        return self.frame(handle, data, dst=dst, magic=PICKLE)

    def forged_answer(self):
        """
        Make an answer to a call of the master to somebody else, which may just wait for one.
        """
        return self.frame(self.world.next_handle(self.rng.randrange(-5, 30)), pickled((0, 0, u'forged')), dst=0,
                          magic=PICKLE, reply_to=self.rng.choice((0, 999, 5)))

    def anything(self):
        return self.frame(self.some_handle(), self.some_pickle(), dst=self.some_id(),
                          magic=self.rng.choice((RAW, PICKLE, BLOB)),
                          reply_to=self.rng.choice((0, 5, 999, 1, 2 ** 32 - 1, self.some_handle())))

    FRAMES = (get_module, get_module, have_modules, cancel, get_resource, add_route, add_route, del_route, del_route, allocate_id, forward_log,
              forward_log, call_service, call_service, file_call, file_call, order, forged_answer, anything, anything)

    def one_frame(self):
        frame = self.rng.choice(self.FRAMES)(self)
        r = self.rng.random()
        if r < 0.08:
            frame['src'] = self.some_id()
        elif r < 0.16:
            frame['auth'] = self.some_id()
        elif r < 0.2:
            frame['dst'] = self.some_id()
        elif r < 0.24:
            frame['data'] = self.some_bytes()
        elif r < 0.28:
            frame['data'] = text(codec_fuzz.mutate(self.rng, frame['data'].encode('latin-1'), self.corpus))
        elif r < 0.3 and len(frame['data']) < 1000:
            frame['repeat'] = self.rng.choice((2, 100, 1000))
        # An order of somebody with authority is obeyed, and so it should be.
        orders = ORDERS + tuple(self.world.task_handles)
        if self.peer.has_authority and frame['handle'] in orders and frame['dst'] not in (0, self.peer.id):
            frame['handle'] = FORWARD_LOG
        # This is how the peer asks whether it is heard.
        if frame['reply_to'] == 9:
            frame['reply_to'] = 5
        return frame

    # ---- steps

    def frames(self):
        return ['send', dict(frames=[self.one_frame() for _ in range(self.rng.randrange(1, 30))])]

    def flood(self):
        frame = self.one_frame()
        if len(frame['data']) * frame.get('repeat', 1) > 20000:
            frame.update(data=u'x', repeat=1)
        return ['flood', dict(frame=frame, count=self.rng.choice((50, 500, 3000)))]

    def unread(self):
        frames = [self.one_frame() for _ in range(5)]
        size = sum(len(frame['data']) * frame.get('repeat', 1) for frame in frames)
        times = 1 if size > 1 << 17 else self.rng.choice((1, 20, 60))
        return ['unread', dict(frames=frames, times=times, seconds=self.rng.choice((0.05, 0.2, 1)))]

    def answer_calls(self):
        return ['answer_calls', dict(answers=[self.some_pickle() for _ in range(3)])]

    def nonsense(self):
        """
        Make what ends the stream.
        """
        return self.rng.choice((
            ['raw', dict(data=self.some_bytes(), repeat=30)],
            ['send', dict(frames=[dict(handle=5, magic=self.rng.choice((0, 0x4d48, 0x7fff)))])],
            ['send', dict(frames=[dict(handle=5, length=self.rng.choice((2 ** 32 - 1, (128 << 20) + 1)))])],
            ['send', dict(frames=[dict(handle=DETACHING, dst=self.peer.parent_id)])]))

    def batch(self):
        """
        Return the steps of one batch.
        """
        steps = [self.rng.choice((self.frames, self.frames, self.frames, self.flood, self.unread, self.answer_calls))()
                 for _ in range(self.rng.randrange(1, 6))]
        if self.rng.random() < 0.06:
            steps.append(self.nonsense())
        return steps


def read_pickle(data):
    """
    Return what the master answered a request for ids.
    """
    return pickle.loads(data.encode('latin-1'))
