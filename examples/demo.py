"""
A tree of contexts does real work: it hashes and indexes every file of the Python standard library.

The children have none of the code they run (``demo_pkg``) and none of the files: both come from
this process, through the tree. Their results stream back while they work, and so do their logs. In
the middle of it one child is killed.

Run it with ``make demo``, or with any Python that has mitogen installed: ``python
examples/demo.py``.
"""

import argparse
import collections
import hashlib
import logging
import os
import platform
import random
import shutil
import signal
import sys
import sysconfig
import threading
import time

import mitogen.core
import mitogen.master

import demo_pkg.index

#: The tree: each name with the name of the context it is started from; None is this process.
TREE = [
    ('ash', None), ('ash.1', 'ash'), ('ash.2', 'ash'), ('ash.3', 'ash'),
    ('elm', None), ('elm.1', 'elm'), ('elm.2', 'elm'), ('elm.3', 'elm'), ('elm.3.1', 'elm.3'),
]

#: When so much of the work is done, the next context that has nobody below it is killed in the
#: middle of a call.
KILL_AT = 0.4

#: A call carries files up to this many bytes, or one file that is larger.
BATCH_BYTES = 32 * 1024


class Worker(object):
    """
    One context and what it did.
    """

    def __init__(self, name, parent, context, start_ms):
        self.name = name
        self.parent = parent
        self.context = context
        self.start_ms = start_ms
        self.pid, self.core, self.python = context.call(demo_pkg.index.describe)
        # Written by the thread that feeds this worker, and by nobody else.
        self.calls = 0
        self.bytes = 0
        self.error = None
        self.seconds = 0.0
        # Written by the main thread.
        self.files = 0


class Work(object):
    """
    The files to be indexed, handed out in batches. A batch that a worker did not finish is handed
    out again.
    """

    def __init__(self, root, paths):
        self.root = root
        self.condition = threading.Condition()
        self.waiting = collections.deque(paths)  # guarded by condition
        self.total = len(paths)
        self.unfinished = len(paths)             # guarded by condition: waiting, or in the hands of a worker
        self.given_back = 0                      # guarded by condition
        self.victim = None                       # guarded by condition: the worker that is killed

    def take(self):
        """
        Return a list of (path, content), or None when all is done. Waits while there is nothing to
        take, but somebody may yet give something back.
        """
        with self.condition:
            while self.unfinished and not self.waiting:
                self.condition.wait()
            batch, size = [], 0
            while self.waiting and (not batch or size < BATCH_BYTES):
                path = self.waiting.popleft()
                with open(os.path.join(self.root, path), 'rb') as fp:
                    content = fp.read()
                batch.append((path, content))
                size += len(content)
            return batch or None

    def is_victim(self, worker):
        """
        Return whether a worker is to be killed now; says so once, to a leaf of the tree.
        """
        with self.condition:
            if self.victim or worker.name in [parent for _, parent in TREE] or self.unfinished > (1 - KILL_AT) * self.total:
                return False
            self.victim = worker
            return True

    def finish(self, batch):
        with self.condition:
            self.unfinished -= len(batch)
            self.condition.notify_all()

    def give_back(self, batch):
        with self.condition:
            self.waiting.extendleft(path for path, _ in batch)
            self.given_back += len(batch)
            self.condition.notify_all()


def feed(worker, work, results, display):
    """
    Keep one worker busy until all work is done, or the worker is lost.
    """
    start = time.time()
    while True:
        batch = work.take()
        if batch is None:
            break
        # A very large batch could be held back by the sending side, for a child that does not read.
        dies = len(batch[0][1]) < BATCH_BYTES and work.is_victim(worker)
        if dies:
            # Stopped first: it must not answer before it is killed.
            os.kill(worker.pid, signal.SIGSTOP)
        try:
            receiver = worker.context.call_async(demo_pkg.index.index_files, results, batch)
            if dies:
                os.kill(worker.pid, signal.SIGKILL)
                display.say('        killed %s, process %d, on purpose in the middle of a call' % (worker.name, worker.pid))
            worker.bytes += receiver.get().unpickle()
            worker.calls += 1
        except mitogen.core.ChannelError as error:
            worker.error = error
            work.give_back(batch)
            break
        work.finish(batch)
    worker.seconds = time.time() - start


class Display(logging.Handler):
    """
    Shows progress: one line that changes on a terminal, a line now and then elsewhere. Log records,
    of this process and of all children, are printed above it.
    """

    def __init__(self, out):
        logging.Handler.__init__(self, logging.INFO)
        self.out = out
        self.live = out.isatty()
        self.line = ''
        self.printed = 0
        self.shown_at = 0.0

    def emit(self, record):
        self.say('%-7s %s: %s' % (record.levelname.lower(), record.name, record.getMessage()))

    def say(self, text=''):
        with self.lock:
            if self.live and self.line:
                self.out.write('\r\033[K')
            self.out.write(text + '\n')
            if self.live:
                self.out.write(self.line)
            self.out.flush()

    def progress(self, done, total, size, seconds):
        tenth = done * 10 // total
        rate = size / 1e6 / max(seconds, 1e-6)
        text = '%d of %d files, %.1f MB, %.1f MB/s' % (done, total, size / 1e6, rate)
        if not self.live:
            if tenth > self.printed:
                self.printed = tenth
                self.say('%3d%%    %s' % (100 * done // total, text))
            return
        now = time.time()
        if now - self.shown_at < 0.05 and done < total:
            return
        self.shown_at = now
        width = min(shutil.get_terminal_size().columns - 1, 100)
        full = max(width - len(text) - 4, 0) * done // total
        with self.lock:
            self.line = ('[%s] %s' % (('#' * full).ljust(max(width - len(text) - 4, 0), '.'), text))[:width]
            self.out.write('\r\033[K' + self.line)
            self.out.flush()

    def end_progress(self):
        with self.lock:
            if self.live and self.line:
                self.out.write('\n')
            self.line = ''


def standard_library():
    """
    Return (folder, relative paths of all files in it), without what was installed beside it or
    compiled from it.
    """
    root = sysconfig.get_paths()['stdlib']
    paths = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - set(['site-packages', 'dist-packages', '__pycache__']))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and os.access(path, os.R_OK):
                paths.append(os.path.relpath(path, root))
    return root, paths


def start_tree(router, display):
    workers = collections.OrderedDict()
    for name, parent in TREE:
        via = workers[parent].context if parent else None
        start = mitogen.core.now()
        context = router.local(name=name.split('.')[-1], via=via)
        workers[name] = Worker(name, parent, context, 1000 * (mitogen.core.now() - start))
    return workers


def index_all(workers, work, receiver, total, display):
    """
    Run the whole work; return (digests by path, places by defined name, lines, seconds).
    """
    by_id = dict((worker.context.context_id, worker) for worker in workers.values())
    digests, places = {}, collections.defaultdict(list)
    lines = 0
    results = receiver.to_sender()
    start = time.time()
    threads = [threading.Thread(target=feed, args=(worker, work, results, display)) for worker in workers.values()]
    for thread in threads:
        thread.start()
    while len(digests) < total:
        try:
            msg = receiver.get(timeout=0.2)
        except mitogen.core.TimeoutError:
            if not any(thread.is_alive() for thread in threads):
                break
            continue
        except mitogen.core.ChannelError:
            # A worker was lost, and no other was sending just then. Its thread gives its files to
            # others.
            continue
        path, digest, count, defined = msg.unpickle()
        if path in digests:
            # A lost worker had sent it before its call ended; another was given it again.
            continue
        digests[path] = digest
        lines += count
        by_id[msg.src_id].files += 1
        for name, line in defined:
            places[name].append((path, line))
        display.progress(len(digests), total, sum(w.bytes for w in by_id.values()), time.time() - start)
    for thread in threads:
        thread.join()
    display.end_progress()
    return digests, places, lines, time.time() - start


def print_table(workers, seconds, display):
    display.say('')
    display.say('%-10s %8s %7s %9s %6s %6s %8s %8s %7s' % (
        'context', 'process', 'core', 'start ms', 'files', 'calls', 'calls/s', 'MB', 'MB/s'))
    for worker in workers.values():
        busy = max(worker.seconds, 1e-6)
        display.say('%-10s %8d %7s %9.1f %6d %6d %8.0f %8.1f %7.1f%s' % (
            '  ' * worker.name.count('.') + worker.name, worker.pid, worker.core, worker.start_ms, worker.files,
            worker.calls, worker.calls / busy, worker.bytes / 1e6, worker.bytes / 1e6 / busy,
            '   killed' if worker.error else ''))
    calls = sum(worker.calls for worker in workers.values())
    size = sum(worker.bytes for worker in workers.values())
    display.say('%-10s %8s %7s %9s %6d %6d %8.0f %8.1f %7.1f' % (
        'all', '', '', '', sum(worker.files for worker in workers.values()), calls, calls / seconds, size / 1e6,
        size / 1e6 / seconds))


def check(root, digests):
    """
    Hash some of the files here and compare; return how many were right of how many.
    """
    sample = random.sample(sorted(digests), min(50, len(digests)))
    right = 0
    for path in sample:
        with open(os.path.join(root, path), 'rb') as fp:
            right += hashlib.sha256(fp.read()).hexdigest() == digests[path]
    return right, len(sample)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0].strip())
    parser.add_argument('--limit', type=int, help='index only so many files')
    options = parser.parse_args()

    display = Display(sys.stdout)
    logging.getLogger().addHandler(display)
    logging.getLogger().setLevel(logging.INFO)
    # Records of the library itself would only distract here.
    logging.getLogger('mitogen').setLevel(logging.WARNING)

    root, paths = standard_library()
    paths = paths[:options.limit]
    display.say('mitogen %s, %s core, Python %s: %d files of %s' % (
        '.'.join(str(part) for part in mitogen.__version__), mitogen.core.CORE, platform.python_version(), len(paths), root))

    with mitogen.master.Router() as router:
        workers = start_tree(router, display)
        with mitogen.core.Receiver(router) as receiver:
            work = Work(root, paths)
            digests, places, lines, seconds = index_all(workers, work, receiver, len(paths), display)
        stats = router.get_stats()
        print_table(workers, seconds, display)

    right, looked = check(root, digests)
    display.say('')
    display.say('%d lines, %d names defined in %d places, in %.1f s; %d of %d digests checked here are right.' % (
        lines, len(places), sum(map(len, places.values())), seconds, right, looked))
    if 'OrderedDict' in places:
        display.say('OrderedDict is defined in %s.' % ', '.join('%s:%d' % place for place in sorted(places['OrderedDict'])[:3]))
    display.say('The children asked for %d modules that they do not have, %.1f KB in all.' % (
        stats['get_module_count'], stats['good_load_module_size'] / 1e3))
    victim = work.victim
    if victim:
        display.say('%s was killed on purpose. Its caller got %s: "%s". Its %d unfinished files went to the others: %d of %d are '
                    'indexed.' % (victim.name, type(victim.error).__name__, victim.error, work.given_back, len(digests),
                                  len(paths)))
    good = len(digests) == len(paths) and right == looked and victim and victim.error
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
