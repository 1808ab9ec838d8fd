"""
A whole master for the fuzzer of it: a tree of honest processes, two peers that lie, and what must
hold whatever these say.
"""

import gc
import hashlib
import os
import re
import statistics
import tempfile
import threading
import time

import liar
import lying_client
import whole_tree
from master_grammar import EVIL, FORGED, Grammar, read_pickle

import mitogen._tasks
import mitogen.core
import mitogen.master
import mitogen.service
import mitogen.unix
import mitogen.utils

#: Seconds after which a call hangs: longer than any takes, on a machine that has much else to do. A
#: peer in between may be waited for until its limit, and some rounds in which that is looked at,
#: are over.
PATIENCE = 150.0

SECRET = 'for nobody to be served'

#: Growth that is allowed from the second third of the batches to the last, medians of each.
#: Descriptors: each peer may have so many files open. Contexts are reckoned instead.
GROWTH = {'bytes': 48 << 20, 'descriptors': 10, 'threads': 2, 'handles': 20}

#: Characters that end a line for some reader or other.
LINE_ENDS = re.compile(u'[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]')


class Finding(Exception):
    """
    Something does not hold.
    """


def check(holds, text, *args):
    if not holds:
        raise Finding(text % args)


class Peer(object):
    """
    One that lies: its driver, its id here, and the first of a block of ids that it was handed.
    """
    has_authority = False
    count = 0

    def __init__(self, world):
        self.world = world
        self.parent_id = 0
        self.start()

    def start(self):
        self.count += 1
        self.driver = self.connect(tempfile.mkdtemp(dir=self.world.folder))
        # Each may fill the stream of the other one, which is cut off in time.
        self.driver.sock.settimeout(2 * PATIENCE)
        self.id = self.driver.id
        self.first_id = read_pickle(self.driver.ask(handle=105, dst=self.parent_id))[0]

    def close(self):
        self.driver.close()


class LyingChild(Peer):
    def connect(self, folder):
        kwargs = {'via': self.world.middle} if self.world.middle else {}
        if self.world.middle:
            self.parent_id = self.world.middle.context_id
        # Its parent may have to give up the one before it first.
        return liar.Liar(self.world.router, folder, connect_timeout=PATIENCE, **kwargs)


class LyingClient(Peer):
    has_authority = True

    def connect(self, folder):
        return lying_client.LyingClient(self.world.router, folder, self.world.listener.protocol.path)


class Log(object):
    """
    The file that the master logs to, of which each line is looked at once.
    """
    def __init__(self, path):
        mitogen.utils.log_to_file(path, level='INFO')
        self.fp = open(path, newline='\n', errors='surrogateescape')
        self.lines = 0

    def check(self):
        text = self.fp.read()
        self.lines += text.count('\n')
        for line in LINE_ENDS.split(text):
            bad = [char for char in line if char in EVIL or (ord(char) < 32 and char != '\t') or 127 <= ord(char) < 160]
            check(not bad, 'a line of the log has %r: %r', bad, line[:500])
            # Either it bears the mark of a context, or a record of ours quotes it.
            marked = re.search(r'\[(?!None\])[^]]+\]', line) or re.search('[\'"]', line.partition(FORGED)[0])
            check(marked or FORGED not in line, 'a line of the log bears no mark: %r', line[:500])
            check(not line.startswith(FORGED), 'a line of the log is forged: %r', line[:500])


class World(object):
    """
    Everything of one row. `rng` decides how the tree is laid out, and what is said.
    """
    def __init__(self, rng):
        self.rng = rng
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = self.temporary.name
        self.log = Log(os.path.join(self.folder, 'log'))
        self.lay_out_files()
        self.router = mitogen.master.Router()
        # Low, so that both sides of this limit are seen.
        self.router.limits.open_files = 4
        self.desk = whole_tree.Desk(self.router)
        files = mitogen.service.FileService(self.router)
        files.register_prefix(os.path.join(self.folder, 'open'))
        self.pool = mitogen.service.Pool(self.router, services=[self.desk, files], size=2)
        self.listener = mitogen.unix.Listener.build_stream(self.router, path=os.path.join(self.folder, 'socket'))
        self.start_tree()
        self.tokens = 0
        self.slowest = 0.0
        self.measured = []
        self.steps = None

    def lay_out_files(self):
        for name, data in ('open/file', 'x' * 300000), ('secret/secret', SECRET * 100):
            path = os.path.join(self.folder, name)
            os.mkdir(os.path.dirname(path))
            with open(path, 'w') as fp:
                fp.write(data)
        os.symlink('../secret', os.path.join(self.folder, 'open', 'link'))
        self.digest = hashlib.sha256(b'x' * 300000).hexdigest()

    def start_tree(self):
        self.middle = self.router.local(name=u'middle') if self.rng.random() < 0.5 else None
        kwargs = {'via': self.middle} if self.middle else {}
        self.sibling = self.router.local(name=u'sibling', **kwargs)
        self.grandchild = self.router.local(name=u'grandchild', via=self.sibling)
        self.honest = [c for c in (self.middle, self.sibling, self.grandchild) if c]
        self.task_handles = self.sibling.call(mitogen._tasks.start)
        self.facts = dict((c.context_id, self.facts_of(c)) for c in self.honest)
        self.pids = dict((c.context_id, c.call(whole_tree.who, 0)[0]) for c in self.honest)
        self.peers = []
        for kind in LyingChild, LyingClient:
            self.peers.append(kind(self))

    def facts_of(self, context):
        return context.name, self.router.stream_by_id(context.context_id), self.router.context_by_id(context.context_id)

    # ---- what the grammar asks

    def honest_ids(self):
        return [context.context_id for context in self.honest]

    def next_id(self):
        return self.peers[-1].first_id + 1000 if self.peers else 1

    def next_handle(self, offset):
        return max(1, self.base_handle + offset)

    # ---- what honest ones do

    def calls(self):
        """
        Start calls of honest ones and among them. Return pairs: a receiver, and what is due there.
        """
        master = self.router.myself().context_id
        for context in self.sibling, self.grandchild:
            number = context.context_id
            pid = self.pids[number]
            self.tokens += 1
            token = self.tokens
            yield context.call_async(whole_tree.who, token), (pid, number, token)
            yield context.call_async(whole_tree.ask_desk, master, token), (os.getpid(), number, token)
            yield context.call_async(whole_tree.state), []
        number = self.grandchild.context_id
        yield self.sibling.call_async(whole_tree.ask_who, number, token), (self.pids[number], number, token)
        if not self.middle:
            # Otherwise the liar's fetches are in its way, until they are given up: both are behind
            # one peer.
            path = os.path.join(self.folder, 'open', 'file')
            yield self.sibling.call_async(whole_tree.fetch, master, path), (True, self.digest)
        yield self.grandchild.call_async(whole_tree.log, u'honest'), None

    def converse(self):
        for receiver, due in list(self.calls()):
            began = time.monotonic()
            try:
                got = receiver.get(timeout=PATIENCE).unpickle()
            except mitogen.core.TimeoutError:
                raise Finding('a call of somebody honest waits for %d seconds; due is %r' % (PATIENCE, due))
            except mitogen.core.Error as e:
                raise Finding('a call of somebody honest fails: %s; due is %r' % (e, due))
            self.slowest = max(self.slowest, time.monotonic() - began)
            check(got == due, 'an answer is %r, and due is %r', got, due)

    # ---- one batch

    def call_liars(self):
        return [peer.driver.context.call_async(whole_tree.who, 0) for peer in self.peers for _ in range(3)]

    def look_at_answers(self, receivers):
        for receiver in receivers:
            try:
                receiver.get(block=False).unpickle()
            except mitogen.core.Error:
                # TimeoutError, too: there is none.
                pass
            except Exception as e:
                raise Finding('an answer of a liar raises %r, which is no error of ours' % (e,))
            receiver.close()

    def run_batch(self):
        receivers = self.call_liars()
        self.base_handle = receivers[-1].handle
        self.steps = [Grammar(self.rng, self, peer).batch() for peer in self.peers]
        for peer, steps in zip(self.peers, self.steps):
            try:
                peer.driver.start('batch', steps=steps, secret=SECRET)
            except OSError:
                # It was cut off since the last batch: it reads nothing in between.
                peer.close()
                peer.start()
                peer.driver.start('batch', steps=[], secret=SECRET)
        self.converse()
        self.await_liars()
        self.converse()
        self.look_at_answers(receivers)
        self.check_tree()
        self.log.check()
        self.measure()

    def await_liars(self):
        for peer in self.peers:
            try:
                listens, leaked = peer.driver.finish()
            except OSError as e:
                raise Finding('%s is not listened to: %s' % (type(peer).__name__, e))
            except EOFError:
                # The master has cut it off and ended its process, before it could say so.
                listens = leaked = False
            check(peer.has_authority or not leaked, '%s was sent a file out of the prefix', type(peer).__name__)
            if not listens:
                peer.close()
                peer.start()

    # ---- what must hold

    def check_tree(self):
        for context in self.honest:
            number = context.context_id
            facts = self.facts_of(context)
            check(facts == self.facts[number], 'context %d was %r and is %r', number, self.facts[number], facts)
        check(not whole_tree.noted, 'the master obeyed: %r', whole_tree.noted)
        check(not self.desk.orders, 'a service obeyed %d times', self.desk.orders)
        # Each peer may have announced some ids of its own, and names its parent, itself and one
        # child at most.
        most = len(self.honest) + 2 + sum(peer.count for peer in self.peers) * 60
        check(len(self.router._context_by_id) <= most, 'the master knows %d contexts, which is more than %d',
              len(self.router._context_by_id), most)

    def measure(self):
        gc.collect()
        with open('/proc/self/statm') as fp:
            resident = int(fp.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
        self.measured.append({
            'bytes': resident, 'descriptors': len(os.listdir('/proc/self/fd')), 'threads': threading.active_count(),
            'handles': len(self.router._handle_map), 'contexts': len(self.router._context_by_id)})

    def medians(self, rows):
        return dict((name, statistics.median(row[name] for row in rows)) for name in rows[0])

    def check_growth(self):
        """
        Compare the last third of the batches with the one before it; the first one is for warming
        up.
        """
        third = len(self.measured) // 3
        if not third:
            return
        before, after = self.medians(self.measured[third:2 * third]), self.medians(self.measured[2 * third:])
        for name, most in GROWTH.items():
            check(after[name] - before[name] <= most, '%s grow from %d to %d', name, before[name], after[name])

    def close(self):
        for peer in self.peers:
            peer.close()
        self.pool.stop()
        self.router.broker.shutdown()
        self.router.broker.join()
        self.log.check()
        self.temporary.cleanup()
