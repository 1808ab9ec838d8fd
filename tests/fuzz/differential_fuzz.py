"""
Does the same to both cores, at random, and compares what comes of it.

    python tests/fuzz/differential_fuzz.py --seconds 60

starts one process for each core. Both get the same operations: frames from scripted neighbours,
messages made here, routes that come and go, and pickles, damaged and whole. After each one is told
what every neighbour received, what was delivered to handlers and receivers, what was decoded or
which error was raised, and what was logged. An operation whose outcomes differ is printed with the
seed that leads to it, and the exit status is 1.

The package has to be installed with its compiled core. --seed N --steps N runs one row of
operations again.
"""

import argparse
import contextlib
import json
import logging
import os
import pickle
import random
import resource
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'lib'))

import codec_fuzz  # noqa: E402
import places  # noqa: E402


PEERS = (101, 102, 2 ** 32 - 1)
IDS = PEERS + (0, 5, 103, 104, 2 ** 31, 999)

#: Free ones; one with each policy; receivers with a respondent and without; those of the master;
#: nobody's.
HANDLES = (1, 2, 3, 4, 5, 6, 103, 104, 102, 999, 0, 2 ** 32 - 1)

MARK = 77777


# ---- operations

def make_pickle(rng, corpus):
    if rng.random() < 0.4:
        return codec_fuzz.generate(rng)
    return codec_fuzz.mutate(rng, rng.choice(corpus), corpus)


def make_operation(rng, corpus):
    """
    Return one operation, as plain data.
    """
    kind = rng.choice(['frame'] * 6 + ['local'] * 2 + ['route'] * 2 + ['mode', 'pickle', 'pickle', 'size'])
    if kind == 'pickle':
        return kind, make_pickle(rng, corpus).decode('latin-1')
    if kind == 'mode':
        return kind, rng.choice(PEERS), rng.choice((None, 0, 101, 55)), rng.random() < 0.5, rng.random() < 0.3
    if kind == 'size':
        return kind, rng.choice((50, 1000, 1 << 27))
    if kind == 'route':
        # Announced by a neighbour, which may have no right to.
        data = rng.choice(('%d:name' % rng.choice(IDS), '%d' % rng.choice(IDS), '-1', 'x', '', '4294967296', ' 5:x'))
        peer = rng.choice(PEERS)
        return 'frame', peer, dict(dst=0, src=peer, auth=peer, handle=rng.choice((103, 103, 104)), data=data, reply_to=0)
    src = rng.choice(IDS)
    fields = dict(
        dst=rng.choice(IDS), src=src, auth=src if rng.random() < 0.8 else rng.choice(IDS), handle=rng.choice(HANDLES),
        reply_to=rng.choice((0, 0, 8, 8, 1, 5, 999, 2 ** 32 - 1)), magic=rng.choice((0x4d49, 0x4d4a, 0x4d4b)),
        data=rng.choice(('', 'x', 'y' * 60, 'z' * 1001, '\x80\x02N.', 'a\x0020\0text', '104:x')))
    if kind == 'local':
        return kind, fields
    peer = rng.choice(PEERS)
    if rng.random() < 0.6:
        fields['src'] = fields['auth'] = peer
    return kind, peer, fields


# ---- one core

#: The subject of a log record, whatever its words.
SAYS = re.compile(
    r'bad auth_id: got \d+|bad src_id: got \d+|refused by policy|reply from unexpected|no route to context|'
    r'routing mode prevents|message too large|invalid handle|unusable route message|may not add a route to \d+|'
    r'cannot add a second route to \d+|may not remove the route to \d+|cannot unpickle Message|crashed')


class World(logging.Handler):
    """
    A master's router with three neighbours.
    """
    def __init__(self):
        logging.Handler.__init__(self, logging.DEBUG)
        import mitogen.core
        import mitogen.master
        import mitogen.parent
        import testlib
        self.core, self.testlib = mitogen.core, testlib
        # Each line is compared, however many come in a second.
        mitogen.core._LOG_INTERVAL = 0
        self.said = []
        log = logging.getLogger('mitogen')
        log.addHandler(self)
        log.setLevel(logging.DEBUG)
        log.propagate = False
        self.broker = mitogen.master.Broker()
        self.router = router = mitogen.master.Router(self.broker)
        self.peers = [testlib.Peer(router, i, child=True) for i in PEERS]
        self.delivered = []
        router.add_handler(self.note('free'), 1)
        router.add_handler(self.note('once'), 2, persist=False)
        router.add_handler(self.note('authority'), 3, policy=mitogen.core.has_parent_authority)
        router.add_handler(self.note('neighbour'), 4, policy=mitogen.parent.is_immediate_child)
        self.receivers = [mitogen.core.Receiver(router, 5, respondent=self.peers[0].context),
                          mitogen.core.Receiver(router, 6)]
        self.settle()

    def emit(self, record):
        text = record.getMessage()
        found = SAYS.search(text)
        # The compiled core says nothing of refused log records, lest that go round.
        if found and not re.search(r'dst=\d+:102\b', text):
            self.said.append((record.levelname, found.group()))

    def note(self, name):
        return lambda msg: self.delivered.append((name,) + self.fields(msg))

    @staticmethod
    def fields(msg):
        return (msg.src_id, msg.auth_id, msg.dst_id, msg.handle, msg.reply_to or 0, msg.enc, msg.data.decode('latin-1'))

    def settle(self):
        """
        Wait until all is done, and return what has come of it.
        """
        # A message that a handler of the first turn sends to a handler here belongs to another
        # turn.
        turns = 3
        while turns or self.router.stats()['queued_work']:
            self.testlib.sync(self.broker)
            turns = max(0, turns - 1)
        outcome = {'peers': []}
        for peer in self.peers:
            mark = self.core.Message(dst_id=peer.context_id, handle=MARK)
            # By hand: the neighbour may have lost its route.
            self.broker.defer_sync(lambda: peer.stream.protocol.send(mark))
            got = []
            while not got or got[-1][4] != MARK:
                got.append(peer.receive())
            outcome['peers'].append([frame[:6] + (frame[6].decode('latin-1'),) for frame in got[:-1]])
        outcome['received'] = [[self.fields(r.get(block=False, throw_dead=False)) for _ in range(r.size())]
                               for r in self.receivers]
        outcome['delivered'], self.delivered[:] = list(self.delivered), []
        # Handlers and the engine may log in either order.
        outcome['said'] = sorted(self.said)
        self.said[:] = []
        return outcome

    def run(self, operation):
        before = peak()
        decoded = getattr(self, 'do_' + operation[0])(*operation[1:])
        outcome = dict(self.settle(), decoded=decoded)
        outcome['memory'] = peak() - before
        return outcome

    def make(self, dst, src, auth, handle, reply_to, data, magic):
        return self.core.Message(dst_id=dst, src_id=src, auth_id=auth, handle=handle, reply_to=reply_to, enc=magic,
                                 data=data.encode('latin-1'))

    def do_frame(self, peer_id, fields):
        # Not through the socket: nothing would tell when a frame that is dropped has been looked
        # at.
        stream = self.peers[PEERS.index(peer_id)].stream
        msg = self.make(**dict(dict(magic=0x4d49), **fields))
        msg.router = self.router
        self.broker.defer_sync(lambda: self.router._async_route(msg, stream))

    def do_local(self, fields):
        fields = dict(fields, src=0, auth=0)
        self.router.route(self.make(**fields))

    def do_mode(self, peer_id, stamp, privileged, unidirectional):
        protocol = self.peers[PEERS.index(peer_id)].stream.protocol
        protocol.auth_id, protocol.is_privileged = stamp, privileged
        self.router.unidirectional = unidirectional

    def do_size(self, size):
        self.router.max_message_size = size

    def do_pickle(self, data):
        msg = self.core.Message(data=data.encode('latin-1'), router=self.router)
        try:
            return 'value', describe(msg.unpickle(throw=False), {})
        except Exception as e:
            if any(words in str(e) for words in LIMITS):
                return LIMIT
            return 'error', ERRORS.get(type(e).__name__, type(e).__name__)

    def close(self):
        for peer in self.peers:
            peer.close()
        self.broker.shutdown()
        self.broker.join()
        # Which would keep all of this world.
        logging.getLogger('mitogen').removeHandler(self)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


#: No operation takes more memory than this at any time, whatever it is.
MOST_MEMORY = 64 << 20


#: The readers fail in their own ways on what is no pickle.
ERRORS = dict.fromkeys(['UnpicklingError', 'EOFError', 'IndexError', 'KeyError', 'AttributeError', 'StreamError',
                        'DamagedError', 'RecursionError', 'MemoryError', 'OverflowError', 'StopIteration'], 'bad')


#: Refusals of the compiled core alone, as docs/differences.rst says.
LIMITS = ('memo index out of bounds', 'a number is not written as one', 'NEWOBJ is not accepted for this', 'nest',
          'SETITEM on what is not a dict', 'bad arguments for Blob', 'bad arguments for Secret',
          "'set'", "'frozenset'", "'bytearray'")
LIMIT = 'limit'


def describe(obj, seen):
    """
    Return plain data that tells what an object is, and where in it an object comes again.
    """
    if callable(obj):
        # A global that was not called. The cores have different objects for it, and no program can
        # use either.
        return ['global']
    name = type(obj).__name__
    if name in ('set', 'frozenset', 'bytearray'):
        # By an opcode of its own, of a later protocol.
        raise ValueError(LIMITS[0])
    if isinstance(obj, (list, tuple, dict)):
        if id(obj) in seen:
            return [name, 'again', seen[id(obj)]]
        seen[id(obj)] = len(seen)
        items = [x for item in obj.items() for x in item] if isinstance(obj, dict) else obj
        return [name] + [describe(item, seen) for item in items]
    if name in ('Sender', 'Context', 'CallError'):
        return [name, re.sub(' at 0x[0-9a-f]+', '', repr(obj))]
    if isinstance(obj, bytes):
        return [name, bytes(obj).decode('latin-1')]
    if isinstance(obj, str):
        return [name, str.__str__(obj)]
    return [name, re.sub(' at 0x[0-9a-f]+', '', repr(obj))]


def work():
    """
    Be one of the two processes: answer each line on stdin.
    """
    sys.setrecursionlimit(5000)
    # Ten bytes may ask the pure core to set aside memory that it does not use, as much as there is.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    # Once, and not in an operation whose memory is measured.
    os.environ['OPENBLAS_NUM_THREADS'] = '1'
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401
    world = World()
    for line in sys.stdin:
        operation = json.loads(line)
        if operation == 'again':
            world.close()
            world = World()
            outcome = world.core.CORE
        else:
            outcome = world.run(operation)
        print(json.dumps(outcome), flush=True)
    world.close()


# ---- both

class Core(object):
    def __init__(self, name):
        self.name = name
        env = dict(os.environ, MITOGEN_CORE=name)
        # The installed package, not the unbuilt one in the folder above.
        self.proc = subprocess.Popen([sys.executable, os.path.abspath(__file__), '--work'], env=env, cwd=places.TARGETS,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, operation):
        self.proc.stdin.write(json.dumps(operation) + '\n')
        self.proc.stdin.flush()

    def finish(self):
        line = self.proc.stdout.readline()
        if not line:
            raise SystemExit('the %s core ended with status %s' % (self.name, self.proc.wait()))
        # A second may begin between the two.
        return json.loads(re.sub('was lost at [0-9:]{8}', 'was lost', line))

    def close(self):
        self.proc.stdin.close()
        self.proc.wait()
        self.proc.stdout.close()


def differences(one, other):
    memory = one.pop('memory'), other.pop('memory')
    if max(memory) > MOST_MEMORY:
        return [('memory',) + memory]
    if LIMIT in (one['decoded'], other['decoded']):
        return []
    return [(key, one[key], other[key]) for key in one if one[key] != other[key]]


def run_seed(cores, seed, steps):
    """
    Do one row of operations. Return the first one that the cores disagree on, or None.
    """
    for core in cores:
        core.start('again')
    assert [core.finish() for core in cores] == [core.name for core in cores]
    rng = random.Random(seed)
    corpus = [codec_fuzz.generate(random.Random(i)) for i in range(20)]
    corpus += [pickle.dumps(x, 2) for x in ([1, u'a', {u'b': b'c'}, (None, True, 1.5, 2 ** 70)], u'x', b'y', {1: [2]})]
    for step in range(steps):
        operation = make_operation(rng, corpus)
        for core in cores:
            core.start(operation)
        one, other = [core.finish() for core in cores]
        found = differences(one, other)
        if found:
            return step, operation, found


def main():
    parser = argparse.ArgumentParser(description='Compare the two cores.')
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--work', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(2 ** 32)
    cores = [Core('native'), Core('pure')]
    end = time.time() + args.seconds
    rows = 0
    try:
        while True:
            bad = run_seed(cores, seed, args.steps)
            if bad:
                print('seed %d, step %d: %r' % (seed, bad[0], bad[1]))
                for key, one, other in bad[2]:
                    print('%s\n  native: %r\n  pure:   %r' % (key, one, other))
                return 1
            rows += 1
            seed += 1
            if args.seed is not None or time.time() > end:
                break
    finally:
        for core in cores:
            core.close()
    print('%d operations in %d rows, no difference' % (rows * args.steps, rows))


if __name__ == '__main__':
    sys.exit(main())
