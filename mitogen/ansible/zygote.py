# SPDX-License-Identifier: BSD-3-Clause
"""
The zygote: a warm interpreter over there that forks a child for each task.

This text runs in an interpreter of its own that has nothing of Mitogen in it and no threads, so a
fork is cheap and its child is clean. :func:`mitogen.ansible.target.zygote_source` puts it behind
those of the modules that it imports. It is started by :mod:`mitogen.ansible.hub`, which sends
orders in frames to our standard input and gets the answers from our standard output. At the end of
the input it ends what still runs and itself.

A frame is a job's number and the length of what follows, four bytes each, and
then a marshalled tuple that begins with a word.
"""

import gc
import marshal
import os
import select
import signal
import struct
import subprocess
import sys
import time
import types

from mitogen.ansible.background import prepare, stand_in
from mitogen.ansible.child import Child
from mitogen.ansible.environment import given
from mitogen.ansible.importing import STDLIB, Finder, Payload

HEADER = struct.Struct('>II')

#: The version of marshal that both ends write: every Python 3 reads it.
MARSHAL = 2

#: Seconds that a job has between being asked to end and being killed.
MERCY = 1.0


class Job(object):
    """
    A process that does one job, and its output.

    :param dict files: descriptor -> name of what comes from there.
    """
    stdin = None
    payload = None
    deadline = None
    #: Folder of the module's archive. A module that is killed leaves it.
    place = None

    def __init__(self, number, pid, files):
        self.number, self.pid, self.files = number, pid, files
        self.open = set(files)
        self.parts = dict((name, []) for name in files.values())

    def text(self, name):
        return b''.join(self.parts.get(name, ()))

    def kill(self, number):
        try:
            os.killpg(self.pid, number)
        except OSError:
            # It has ended, or never got as far as to have a group.
            pass


def pipe():
    """
    Return (end to read, end to write), above the numbers that modules expect to be free. Neither
    survives an exec.
    """
    import fcntl
    ends = []
    for fd in os.pipe():
        ends.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64))
        os.close(fd)
    return ends


class Zygote(object):

    def __init__(self, infd, outfd):
        self.infd, self.outfd = infd, outfd
        self.poll = select.poll()
        self.poll.register(infd, select.POLLIN)
        self.buffer = bytearray()
        self.jobs = {}      # number -> Job
        self.by_file = {}   # descriptor -> Job
        self.texts = {}     # digest -> source, deflated
        self.codes = {}     # (module, digest) -> code
        self.payloads = {}  # digest -> Payload
        self.loaded = {}    # module -> digest of the source that it was made from
        self.tried = set()  # modules that children imported
        self.known = 0      # how many modules there were when they were frozen
        self.finder = Finder()
        sys.meta_path.insert(0, self.finder)

    # The loop.

    def run(self):
        while True:
            for fd, event in self.poll.poll(self.timeout()):
                if fd == self.infd:
                    if not self.receive():
                        return
                elif fd in self.by_file:
                    self.on_file(self.by_file[fd], fd, event)
            self.kill_late()

    def timeout(self):
        return 100 if any(job.deadline for job in self.jobs.values()) else None

    def receive(self):
        try:
            chunk = os.read(self.infd, 1 << 18)
        except OSError:
            # A terminal whose other end is gone.
            chunk = b''
        self.buffer += chunk
        while len(self.buffer) >= HEADER.size:
            number, length = HEADER.unpack_from(self.buffer)
            end = HEADER.size + length
            if len(self.buffer) < end:
                break
            request = marshal.loads(bytes(self.buffer[HEADER.size:end]))
            del self.buffer[:end]
            try:
                getattr(self, 'on_' + request[0])(number, *request[1:])
            except Exception as error:
                self.answer(number, ('fail', 'zygote', '%s: %s' % (type(error).__name__, error)))
        return bool(chunk)

    def answer(self, number, value):
        data = marshal.dumps(value, MARSHAL)
        data = memoryview(HEADER.pack(number, len(data)) + data)
        while data:
            data = data[os.write(self.outfd, data):]

    # Requests.

    def on_payload(self, number, digest, name, members, texts):
        self.texts.update(texts)
        self.payloads[digest] = Payload(self, name, members)

    def on_run(self, number, digest, call, environ, folder):
        """
        Run a module. `call` is how: see :func:`mitogen.ansible.child.begin_module`.
        """
        payload = self.payloads[digest]
        if not self.warm_up(payload, call):
            return self.answer(number, ('unknown',))
        self.run_child(number, Child(self, payload, call, environ, folder))

    def on_background(self, number, digest, call, inner_digest, inner_call, environ, folder):
        """
        Run the wrapper of an asynchronous task, and in its child the module: that of the last of
        its arguments.
        """
        payload, inner = self.payloads[digest], self.payloads[inner_digest]
        if not self.warm_up(inner, inner_call) or not self.warm_up(payload, call):
            return self.answer(number, ('unknown',))
        if inner.ran:
            prepare(inner)
        inner.ran = True
        stand = Child(self, inner, inner_call, environ, folder)
        self.run_child(number, Child(self, payload, call, environ, folder),
                       lambda: stand_in(stand, inner_call['argv'][0]))

    def run_child(self, number, child, prepare_child=None):
        """
        Fork a child, which calls `prepare_child` first.
        """
        payload = child.payload
        if payload.lesson is not None:
            self.learn(payload)
        child.drops_others()
        if payload.needs_archive:
            child.place = child.make_place()
        self.freeze()
        out_r, out_w = pipe()
        err_r, err_w = pipe()
        files = {out_r: 'out', err_r: 'err'}
        new_w = None
        if not payload.learned:
            new_r, new_w = pipe()
            files[new_r] = 'new'
        pid = os.fork()
        if not pid:
            child.live(out_w, err_w, new_w, list(files), prepare_child)
        for fd in (out_w, err_w, new_w):
            if fd is not None:
                os.close(fd)
        job = self.start(Job(number, pid, files))
        job.payload, job.place = payload, child.place

    def on_command(self, number, text, data, folder):
        """
        Run a shell's command, with `data` as its standard input.
        """
        proc = subprocess.Popen(
            ['/bin/sh', '-c', text] if isinstance(text, str) else list(text), cwd=folder or None, start_new_session=True,
            env=given(),
            stdin=subprocess.PIPE if data else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        files = {}
        for stream, name in (proc.stdout, 'out'), (proc.stderr, 'err'):
            files[os.dup(stream.fileno())] = name
            stream.close()
        job = self.start(Job(number, proc.pid, files))
        # Its status is ours to take.
        proc.returncode = 0
        if data:
            job.stdin, job.data = os.dup(proc.stdin.fileno()), memoryview(data)
            proc.stdin.close()
            os.set_blocking(job.stdin, False)
            self.by_file[job.stdin] = job
            self.poll.register(job.stdin, select.POLLOUT)

    def on_cancel(self, number, wanted):
        job = self.jobs.get(wanted)
        if job is not None and job.deadline is None:
            job.deadline = time.monotonic() + MERCY
            job.kill(signal.SIGTERM)

    # Jobs.

    def start(self, job):
        self.jobs[job.number] = job
        for fd in job.files:
            self.by_file[fd] = job
            self.poll.register(fd, select.POLLIN)
        return job

    def on_file(self, job, fd, event):
        if fd == job.stdin:
            return self.feed(job)
        chunk = os.read(fd, 1 << 16)
        if chunk:
            job.parts[job.files[fd]].append(chunk)
        else:
            self.forget(fd)
            job.open.discard(fd)
            if not job.open:
                self.finish(job)

    def feed(self, job):
        try:
            job.data = job.data[os.write(job.stdin, job.data[:1 << 16]):]
        except BlockingIOError:
            return
        except OSError:
            job.data = b''
        if not job.data:
            self.forget(job.stdin)
            job.stdin = None

    def forget(self, fd):
        self.poll.unregister(fd)
        del self.by_file[fd]
        os.close(fd)

    def finish(self, job):
        if job.stdin is not None:
            self.forget(job.stdin)
        del self.jobs[job.number]
        _, status = os.waitpid(job.pid, 0)
        self.tidy(job)
        complaint = b'' if job.payload is None else epitaph(status)
        self.answer(job.number, ('done', exit_status(status), job.text('out'), job.text('err') + complaint))
        if job.payload is not None and not job.payload.learned and job.text('new'):
            job.payload.lesson = job.text('new').decode().split()

    def tidy(self, job):
        """
        Remove what a module has left that could not do so itself.
        """
        if job.place and os.path.isdir(job.place):
            import shutil
            shutil.rmtree(job.place, ignore_errors=True)

    def kill_late(self):
        for job in list(self.jobs.values()):
            if job.deadline and time.monotonic() > job.deadline:
                job.kill(signal.SIGKILL)
                # Another process, not started by us, holds its files now.
                for fd in list(job.open):
                    self.forget(fd)
                job.open.clear()
                self.finish(job)

    def end(self):
        for number in signal.SIGTERM, signal.SIGKILL:
            for job in self.jobs.values():
                job.kill(number)
            end = time.monotonic() + MERCY
            while number == signal.SIGTERM and time.monotonic() < end and any(map(is_running, self.jobs.values())):
                time.sleep(0.02)
        for job in self.jobs.values():
            self.tidy(job)

    # Being warm.

    def warm_up(self, payload, call):
        """
        Import what every module needs, and return whether the payload can be
        run in the way that `call` tells.
        """
        self.finder.payload = payload
        names = ['ansible.module_utils.basic']
        if call['way'] == 'loader':
            names.append(call['loader'])
        for name in names:
            self.tried.add(name)
            if name not in sys.modules:
                __import__(name)
                self.lighten(name)
        if call['way'] != 'loader':
            return True
        return takes(sys.modules[call['loader']].run_module, ['modlib_path'] + list(call['arguments']))

    def lighten(self, name):
        """
        Do once what each module would do.
        """
        if name != 'ansible.module_utils.basic':
            return
        if getattr(sys.modules[name], 'subprocess', None) is subprocess:
            sys.modules[name].subprocess = lightened_subprocess()
        # The C library keeps what it has loaded.
        import locale
        try:
            before = locale.setlocale(locale.LC_ALL)
            locale.setlocale(locale.LC_ALL, '')
            locale.setlocale(locale.LC_ALL, before)
        except locale.Error:
            # The module will look for another one.
            pass

    def learn(self, payload):
        """
        Import what a child has imported, where that is safe: modules of the standard library and
        Ansible's own. Of others, and of the module itself, keep the code.
        """
        self.finder.payload = payload
        names, payload.lesson, payload.learned = payload.lesson, None, True
        for name in payload.modules:
            if name in names or not name.startswith('ansible.module_utils.'):
                payload.code(name)
        for name in names:
            if name in self.tried:
                continue
            self.tried.add(name)
            known = name.startswith('ansible.module_utils.') and name in payload.modules
            if known or name.partition('.')[0] in STDLIB:
                try:
                    __import__(name)
                except BaseException:
                    # The child that needs it gets the same.
                    pass

    def freeze(self):
        """
        Keep the garbage collector from writing to memory that is shared with children.
        """
        if self.known != len(sys.modules):
            gc.collect()
            getattr(gc, 'freeze', gc.collect)()
            self.known = len(sys.modules)


def lightened_subprocess():
    """
    Return a copy of `subprocess` whose `Popen` leaves out the `preexec_fn` of Ansible's
    `run_command` if that function has nothing to do. Without a `preexec_fn` the child needs no copy
    of our memory.
    """
    def popen(*args, **options):
        if is_idle(options.get('preexec_fn')):
            options['preexec_fn'] = None
        return subprocess.Popen(*args, **options)

    module = types.ModuleType('subprocess')
    module.__dict__.update(vars(subprocess), Popen=popen)
    return module


def is_idle(func):
    """
    Return whether this is that function of `run_command`, and there is no umask to set. In older
    releases it calls a method that does something for Python 2 only.
    """
    code = getattr(func, '__code__', None)
    if code is None or code.co_name != 'preexec' or \
            not set(code.co_names) <= {'os', 'umask', '_restore_signal_handlers'} or 'umask' not in code.co_freevars:
        return False
    return not func.__closure__[code.co_freevars.index('umask')].cell_contents


def takes(func, arguments):
    """
    Return whether `func` takes all of these keyword arguments, and needs no
    others.
    """
    code = func.__code__
    names = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    optional = set(func.__kwdefaults__ or ()) | set(names[code.co_argcount - len(func.__defaults__ or ()):code.co_argcount])
    return set(arguments) <= set(names) <= set(arguments) | optional


def exit_status(status):
    """
    Return the exit status that a shell would report for a process that ended so.
    """
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def epitaph(status):
    """
    Return the words that the shell which Ansible has around an interpreter would write about its
    end. Any shell but dash is replaced by the interpreter, and writes nothing.
    """
    if not os.WIFSIGNALED(status) or not os.path.realpath('/bin/sh').endswith('dash'):
        return b''
    return ('%s\n' % (signal.strsignal(os.WTERMSIG(status)),)).encode() if hasattr(signal, 'strsignal') else b''


def is_running(job):
    try:
        return os.waitpid(job.pid, os.WNOHANG) == (0, 0)
    except OSError:
        return False


def main():
    import fcntl
    infd, outfd = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64) for fd in (0, 1)]
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    # Nothing but frames may get there.
    os.dup2(2, 1)
    os.close(null)
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        # It ends with its input; terminals and managers of sessions need not ask.
        # An exec makes it the default again, as it would not with SIG_IGN.
        signal.signal(number, lambda number, frame: None)
    zygote = Zygote(infd, outfd)
    try:
        zygote.run()
    finally:
        zygote.end()
