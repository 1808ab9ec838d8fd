"""
A long run of everything at once over a tree of three levels: calls, rows of calls, floods, large
values, services, files and imports, while contexts are killed, stopped, shut down and started anew.

    python tests/load/soak.py --seconds 1800

Each answer is checked. An operation may fail only if a context that it needs, or one on the way
there, was struck meanwhile. In the end the tree is counted, then shut down, and nothing may be
left. A message that was acknowledged and got lost, an operation that took too long, or a thing that
stayed behind is a finding: it is printed, and the exit status is 1. MITOGEN_CORE chooses the core.
--seed repeats a row of strikes, though not how threads meet.
"""

import argparse
import collections
import faulthandler
import gc
import hashlib
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'targets'))

import soak_targets  # noqa: E402

import mitogen.core  # noqa: E402
import mitogen.debug  # noqa: E402
import mitogen.master  # noqa: E402
import mitogen.parent  # noqa: E402
import mitogen.service  # noqa: E402

#: Every process that descends from this one carries this variable.
MARK = 'MITOGEN_SOAK'

#: Seconds after which an operation hangs: longer than any takes, on a machine that has much else to
#: do.
PATIENCE = 300.0

#: The master may grow by this between the two counts, and for each connection by the facts kept
#: about its context.
GROWTH, GROWTH_EACH = 48 << 20, 24000


class Teller(mitogen.service.Service):
    """
    The master's service.
    """
    @mitogen.service.expose(mitogen.service.AllowAny())
    @mitogen.service.arg_spec({'value': int})
    def tell(self, value):
        return value * 2


class Place(object):
    """
    A place in the tree, and the context that is there at present.
    """
    def __init__(self, name, parent):
        self.name = name
        self.parent = parent
        self.life = None


class Life(object):
    """
    One context, from its start until it is struck.
    """
    def __init__(self, place, via, context):
        self.place = place
        self.via = via
        self.context = context
        self.struck = False
        self.pid = context.call(os.getpid)

    def lost(self):
        """
        Return whether this context, or one on the way to it, was struck.
        """
        return self.struck or (self.via is not None and self.via.lost())


class Soak(object):
    def __init__(self, args):
        self.args = args
        self.seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 32)
        self.rng = random.Random(self.seed)  # of the thread that strikes
        self.lock = threading.Lock()
        self.done = collections.Counter()
        self.failed = collections.Counter()
        self.seconds = collections.Counter()
        self.strikes = collections.Counter()
        self.errors = collections.Counter()
        self.messages = 0
        self.bytes = 0
        self.findings = []
        self.running = {}  # thread -> (what it does, since when)
        self.pausing = threading.Event()
        self.striking = threading.Event()
        self.ending = threading.Event()
        self.count = 0
        self.folder = tempfile.mkdtemp(prefix='mitogen-soak-')
        self.places = []
        for a in range(args.branches):
            first = self.add('%d' % a, None)
            for b in range(args.branches):
                second = self.add('%d.%d' % (a, b), first)
                self.add('%d.%d.0' % (a, b), second)

    def add(self, name, parent):
        place = Place(name, parent)
        self.places.append(place)
        return place

    def make_files(self):
        rng = random.Random(1)
        self.fetched, self.pushed, self.modules = {}, {}, {}
        for kind, table, sizes in (('fetch', self.fetched, (0, 1, 131046, 3000000)), ('push', self.pushed, (10, 70000))):
            for number, size in enumerate(sizes):
                path = os.path.join(self.folder, '%s%d' % (kind, number))
                data = bytes(bytearray(rng.getrandbits(8) for _ in range(min(size, 65536)))) * (size // 65536 + 1)
                with open(path, 'wb') as fp:
                    fp.write(data[:size])
                table[path] = hashlib.sha256(data[:size]).hexdigest()
        for number in range(20):
            name = 'soak_shipped_%d' % number
            with open(os.path.join(self.folder, name + '.py'), 'w') as fp:
                fp.write('# %s\nVALUE = %d\n' % ('x' * rng.choice((10, 20000)), number * 7))
            self.modules[name] = number * 7
        sys.path.insert(0, self.folder)

    # ---- the tree

    def find(self, text):
        with self.lock:
            self.findings.append(text)
        print('finding: ' + text, flush=True)

    def begin(self, what):
        self.running[threading.current_thread()] = (what, time.monotonic())

    def end(self):
        self.running[threading.current_thread()] = (None, time.monotonic())

    def wait_while_paused(self):
        while self.pausing.is_set() and not self.ending.is_set():
            time.sleep(0.02)

    def lives(self):
        with self.lock:
            return [place.life for place in self.places if place.life is not None and not place.life.lost()]

    def start_missing(self):
        """
        Start a context for the first place that has none, and a parent to start it; return whether
        there was one.
        """
        for place in self.places:
            with self.lock:
                via = place.parent.life if place.parent else None
                ready = place.parent is None or (via is not None and not via.lost())
                missing = ready and (place.life is None or place.life.lost())
            if not missing:
                continue
            self.begin('start of %s' % place.name)
            began = time.monotonic()
            try:
                context = self.router.local(via=via.context if via else None)
                life = Life(place, via, context)
            except mitogen.core.Error:
                self.note_failure('start', [via] if via else [])
                return True
            finally:
                self.end()
            with self.lock:
                self.done['start'] += 1
                self.seconds['start'] += time.monotonic() - began
                place.life = life
            return True
        return False

    def note_failure(self, name, lives):
        error = sys.exc_info()[1]
        if any(life.lost() for life in lives):
            with self.lock:
                self.failed[name] += 1
                self.errors[type(error).__name__] += 1
        else:
            self.find('%s failed without a cause: %s' % (name, traceback.format_exc()))

    def keep_tree(self):
        while not self.ending.is_set():
            if not self.start_missing():
                time.sleep(0.05)

    # ---- strikes

    def strike_at_random(self):
        while not self.ending.wait(self.rng.expovariate(1.0 / self.args.pause)):
            lives = self.lives()
            if self.pausing.is_set() or not self.striking.is_set() or not lives:
                continue
            self.begin('strike')
            life = self.rng.choice(lives)
            how = self.rng.choice(('kill', 'kill', 'stop', 'stop', 'shutdown'))
            with self.lock:
                if life.lost():
                    continue
                # Its process was not waited for yet, so the number is still its own.
                if how == 'stop':
                    os.kill(life.pid, signal.SIGSTOP)
                else:
                    life.struck = True
                    if how == 'kill':
                        os.kill(life.pid, signal.SIGKILL)
                self.strikes[how] += 1
            if how == 'stop':
                self.ending.wait(self.rng.uniform(0.01, 1.0))
                with self.lock:
                    # If one above it was killed meanwhile, it may be gone, but a stopped process is
                    # not.
                    os.kill(life.pid, signal.SIGCONT)
            elif how == 'shutdown':
                life.context.shutdown(wait=True)
            self.end()

    # ---- operations: each returns how many messages and bytes it was

    def op_call(self, rng, life):
        value = [rng.random(), u'text \u20ac', b'\xff\0', {u'a': (None, True, 1 << 70)}]
        assert life.context.call(soak_targets.echo, value) == value
        try:
            life.context.call(soak_targets.fail, 'meant to')
        except mitogen.core.CallError as error:
            assert 'meant to' in str(error)
        else:
            raise AssertionError('no CallError')
        return 2, 0

    def op_row_of_calls(self, rng, life):
        receivers = [life.context.call_async(soak_targets.echo, i) for i in range(100)]
        assert [receiver.get().unpickle() for receiver in receivers] == list(range(100))
        return 100, 0

    def op_chain(self, rng, life):
        with mitogen.parent.CallChain(life.context, pipelined=True) as chain:
            first = chain.call_async(soak_targets.echo, 1)
            chain.call_async(soak_targets.fail, 'first of all')
            last = chain.call_async(soak_targets.echo, 2)
            assert first.get().unpickle() == 1
            try:
                last.get().unpickle()
            except mitogen.core.CallError as error:
                assert 'first of all' in str(error)
            else:
                raise AssertionError('the chain went on')
        return 3, 0

    def op_large(self, rng, life):
        data = os.urandom(4096) * rng.choice((16, 64, 256, 1000))
        assert life.context.call(soak_targets.digest, data) == (hashlib.sha256(data).hexdigest(), data)
        return 1, 2 * len(data)

    def op_one_way(self, rng, life):
        key = self.new_key()
        for number in range(300):
            life.context.call_no_reply(soak_targets.note, key, number)
        assert life.context.call(soak_targets.take_notes, key) == list(range(300))
        return 301, 0

    def op_flood_to_master(self, rng, life):
        with mitogen.core.Receiver(self.router, respondent=self.router.context_by_id(life.context.context_id)) as inbox:
            sent = life.context.call_async(soak_targets.flood, inbox.to_sender(), 60, 60000)
            for number in range(60):
                got, data = inbox.get().unpickle()
                assert (got, len(data)) == (number, 60000)
            assert sent.get().unpickle() == 60
        return 61, 60 * 60000

    def op_flood_between(self, rng, life, other):
        key = self.new_key()
        sender = other.context.call(soak_targets.open_inbox, key)
        try:
            count = life.context.call(soak_targets.flood, sender, 60, 30000)
        except mitogen.core.Error:
            other.context.call_no_reply(soak_targets.close_inbox, key)
            raise
        # The messages that it claims to have sent must be there.
        got = other.context.call(soak_targets.drain, key, count, PATIENCE)
        assert got == (list(range(count)), count * 30000)
        return count + 3, count * 30000

    def op_service(self, rng, life):
        assert life.context.call_service(soak_targets.Adder, 'add', a=1, b=2) == 3
        assert life.context.call(soak_targets.ask_service, self.router.myself(), Teller.name(), 21) == 42
        return 4, 0

    def op_file(self, rng, life):
        path = rng.choice(sorted(self.fetched))
        assert life.context.call(soak_targets.fetch, self.router.myself(), path) == (True, self.fetched[path])
        return 2, os.path.getsize(path)

    def op_pushed_file(self, rng, life):
        path = rng.choice(sorted(self.pushed))
        self.push.propagate_to(context=life.context, path=path)
        assert life.context.call(soak_targets.pushed, path) == self.pushed[path]
        return 2, os.path.getsize(path)

    def op_import(self, rng, life):
        name = rng.choice(sorted(self.modules))
        assert life.context.call(soak_targets.import_value, name) == self.modules[name]
        return 1, 0

    def new_key(self):
        with self.lock:
            self.count += 1
            return self.count

    def work(self, seed):
        rng = random.Random(seed)
        names = sorted(name[3:] for name in dir(self) if name.startswith('op_'))
        while not self.ending.is_set():
            self.wait_while_paused()
            lives = self.lives()
            if not lives:
                time.sleep(0.01)
                continue
            name = rng.choice(names)
            used = [rng.choice(lives) for _ in range(2 if name == 'flood_between' else 1)]
            if len(set(used)) < len(used):
                continue
            self.begin('%s with %s' % (name, ', '.join(life.place.name for life in used)))
            began = time.monotonic()
            try:
                messages, size = getattr(self, 'op_' + name)(rng, *used)
                with self.lock:
                    self.done[name] += 1
                    self.seconds[name] += time.monotonic() - began
                    self.messages += messages
                    self.bytes += size
            except mitogen.core.Error:
                self.note_failure(name, used)
            except Exception:
                self.find('%s: %s' % (name, traceback.format_exc()))
            self.end()

    # ---- counting

    def look_for_hangs(self):
        now = time.monotonic()
        for thread, (what, since) in list(self.running.items()):
            if what and now - since > PATIENCE:
                print('hangs: %s, since %.0f s' % (what, now - since))
                sys.stdout.flush()
                faulthandler.dump_traceback(all_threads=True)
                print(mitogen.debug.describe(), flush=True)
                for pid in marked_processes():
                    os.kill(pid, signal.SIGKILL)
                os._exit(1)

    def sleep(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.findings:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))
            self.look_for_hangs()

    def pause(self):
        """
        Wait until every operation has ended and the tree is whole.
        """
        self.pausing.set()
        while any(what for what, _ in list(self.running.values())) or len(self.lives()) < len(self.places):
            time.sleep(0.02)
            self.look_for_hangs()

    def measure(self, first=None):
        """
        Return what there is while the tree is whole and idle. A descriptor that there was not
        `first` is given time to be closed by whoever is about to.
        """
        # Wait for the children that were killed, and drop their objects.
        children = sum(place.parent is None for place in self.places)
        end = time.monotonic() + PATIENCE
        while len(own_children()) > children and time.monotonic() < end:
            time.sleep(0.02)
        gc.collect()
        end = time.monotonic() + 10
        while first and len(os.listdir('/proc/self/fd')) > first['descriptors'] and time.monotonic() < end:
            time.sleep(0.02)
        found = collections.OrderedDict()
        found['descriptors'] = len(os.listdir('/proc/self/fd'))
        self.opened = sorted(repr(ref()) for ref in list(mitogen.core.Side._open.values())) + descriptors()
        found['threads'] = len(os.listdir('/proc/self/task'))
        found['children'] = len(own_children())
        found['contexts'] = len(self.lives())
        found['processes'] = len(marked_processes())
        found['handles'] = len(self.router._handle_map)
        found['resident KiB'] = resident('self')
        found['resident KiB, largest context'] = max(resident(life.pid) for life in self.lives())
        found['threads, all contexts'] = sum(len(os.listdir('/proc/%d/task' % life.pid)) for life in self.lives())
        return found

    def run(self):
        args = self.args
        os.environ[MARK] = str(os.getpid())
        before = (len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')), len(own_children()))
        self.make_files()
        broker = mitogen.master.Broker()
        self.router = mitogen.master.Router(broker)
        files = mitogen.service.FileService(self.router)
        files.register_prefix(self.folder)
        self.push = mitogen.service.PushFileService(router=self.router)
        pool = mitogen.service.Pool(self.router, services=[files, self.push, Teller(self.router)], size=4)
        began = time.monotonic()
        threads = [threading.Thread(target=self.keep_tree, name='soak.keeper')]
        threads += [threading.Thread(target=self.work, args=(self.seed + i,), name='soak.%d' % i)
                    for i in range(args.workers)]
        threads.append(threading.Thread(target=self.strike_at_random, name='soak.striker'))
        self.pausing.set()
        for thread in threads:
            thread.daemon = True
            thread.start()
        self.pause()
        self.pausing.clear()
        # Caches fill and pools start before the first count.
        self.sleep(args.seconds * 0.1)
        self.pause()
        first = self.measure()
        self.striking.set()
        self.pausing.clear()
        self.sleep(args.seconds * 0.9)
        self.pause()
        last = self.measure(first)
        self.ending.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread
        for life in self.lives():
            assert life.context.call(soak_targets.echo, life.pid) == life.pid
        stats = self.router.stats()
        took = time.monotonic() - began
        pool.stop()
        broker.shutdown()
        broker.join()
        sys.path.remove(self.folder)
        shutil.rmtree(self.folder)
        after = self.wait_for_nothing(before)
        self.report(took, first, last, before, after, stats)

    def wait_for_nothing(self, before):
        end = time.monotonic() + PATIENCE / 10
        while True:
            after = (len(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')), len(own_children()))
            left = marked_processes()
            # One thread waits for the end of the main thread.
            if not left and after[0] <= before[0] and after[1] <= before[1] + 1 and after[2] <= before[2]:
                return after + (0,)
            if time.monotonic() > end:
                self.find('left behind: (descriptors, threads, children) were %r and are %r; processes %r'
                          % (before, after, left))
                return after + (len(left),)
            time.sleep(0.05)

    def report(self, took, first, last, before, after, stats):
        for name in 'descriptors', 'threads', 'children', 'contexts', 'processes', 'handles':
            if last[name] > first[name]:
                self.find('%s grew from %d to %d; open: %s' % (name, first[name], last[name], ', '.join(self.opened)))
        allowed = (GROWTH + GROWTH_EACH * self.done['start']) >> 10
        if last['resident KiB'] - first['resident KiB'] > allowed:
            self.find('the master grew by more than %d KiB' % allowed)

        print('%s core, %.0f s, seed %d' % (mitogen.core.CORE, took, self.seed))
        print('')
        print('%-20s %10s %22s %10s' % ('operation', 'done', 'lost with its context', 'ms each'))
        for name in sorted(self.done):
            print('%-20s %10d %22d %10.1f' % (
                name, self.done[name], self.failed[name], 1000 * self.seconds[name] / self.done[name]))
        print('%-20s %10d %22d' % ('all', sum(self.done.values()), sum(self.failed.values())))
        print('')
        print('messages checked     %10d' % self.messages)
        print('MiB checked          %10d' % (self.bytes >> 20))
        print('frames in and out    %10d %10d' % (stats['messages_in'], stats['messages_out']))
        for name in sorted(self.strikes):
            print('strikes: %-11s %10d' % (name, self.strikes[name]))
        for name in sorted(self.errors):
            print('%-20s %10d' % (name, self.errors[name]))
        print('')
        print('%-32s %10s %10s' % ('the whole tree, idle', 'early', 'late'))
        for name in first:
            print('%-32s %10d %10d' % (name, first[name], last[name]))
        print('')
        print('%-32s %10s %10s' % ('this process', 'before', 'after'))
        for index, name in enumerate(('descriptors', 'threads', 'children')):
            print('%-32s %10d %10d' % (name, before[index], after[index]))
        print('%-32s %10s %10d' % ('processes left', '', after[3]))
        print('')
        print('%d findings' % len(self.findings), flush=True)


def resident(pid):
    with open('/proc/%s/status' % pid) as fp:
        return int([line for line in fp if line.startswith('VmRSS')][0].split()[1])


def stat_fields(pid):
    try:
        with open('/proc/%s/stat' % pid) as fp:
            return fp.read().rpartition(')')[2].split()
    except (IOError, OSError):
        return None


def descriptors():
    """
    Return what each descriptor of this process is.
    """
    found = []
    for name in sorted(os.listdir('/proc/self/fd'), key=int):
        try:
            found.append('%s: %s' % (name, os.readlink('/proc/self/fd/' + name)))
        except OSError:
            # The descriptor of the list itself.
            pass
    return found


def own_children():
    """
    Return the ids of our children, zombies too.
    """
    me = str(os.getpid())
    return [int(name) for name in os.listdir('/proc') if name.isdigit() and (stat_fields(name) or '  ')[1] == me]


def marked_processes():
    """
    Return the ids of the running processes that descend from this one, wherever they are by now.
    """
    found = []
    wanted = ('%s=%d' % (MARK, os.getpid())).encode()
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open('/proc/%s/environ' % name, 'rb') as fp:
                    if wanted in fp.read().split(b'\0'):
                        found.append(int(name))
            except (IOError, OSError):
                pass
    return found


def main():
    parser = argparse.ArgumentParser(description='Run everything at once for long.')
    parser.add_argument('--seconds', type=float, default=1800)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--branches', type=int, default=2, help='children of each context of the first two levels')
    parser.add_argument('--workers', type=int, default=4)
    parser.add_argument('--pause', type=float, default=2.0, help='seconds between two strikes, on average')
    parser.add_argument('--log', help='level of the log; else only findings are told')
    args = parser.parse_args()
    logging.basicConfig(level=getattr(logging, args.log) if args.log else logging.CRITICAL)
    soak = Soak(args)
    soak.run()
    return 1 if soak.findings else 0


if __name__ == '__main__':
    sys.exit(main())
