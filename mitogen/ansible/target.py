# SPDX-License-Identifier: BSD-3-Clause
"""
Targets, as the daemon has them: a host and login with its context and hub, and
the controller's own machine, whose hub is in the daemon itself.
"""

from __future__ import absolute_import

import collections
import hashlib
import itertools
import os
import queue
import shlex
import threading
import time

import mitogen.core
import mitogen.parent
import mitogen.ansible.hub
import mitogen.ansible.payload
import mitogen.ansible.remote
import mitogen.ansible.sent
from mitogen.ansible import answers

#: Seconds for which a failed connection is not tried again.
FORGET = 60.0

#: Bytes of a file in one message, and how many of these may be on their way.
PIECE, WINDOW = 1 << 17, 16

#: Archives of modules that a host keeps, because they may be sent again.
MOST_ARCHIVES = 20

#: Runs the first interpreter there is; `$MITOGEN_PYTHON` is the one that Ansible would use, if it
#: has told.
FIND_PYTHON = (
    'for p in %s python3 /usr/libexec/platform-python /usr/local/bin/python3; do '
    'command -v "$p" >/dev/null 2>&1 && exec "$p" "$@"; done; echo "no python3 here" >&2; exit 127')


#: Modules that are the text of a zygote, in the order of their imports.
ZYGOTE = ['environment.py', 'importing.py', 'child.py', 'background.py', 'zygote.py']


def zygote_source():
    """
    Return the text of a zygote. It runs as one module, in which each name is known already that a
    part of it imports.
    """
    lines = []
    for name in ZYGOTE:
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), 'rb') as fp:
            lines += fp.readlines()
    return b''.join([line for line in lines if not line.startswith(b'from mitogen.ansible.')])


class ConnectError(Exception):
    """
    There is no way to the target, or no interpreter there.
    """
    pass


class Options(mitogen.parent.Options):
    """
    :param list argv: command line that Ansible's own plugin made, up to where
        the command for the remote shell begins.
    """

    def __init__(self, argv=(), **options):
        super(Options, self).__init__(**options)
        self.argv = list(argv)


class Connection(mitogen.parent.Connection):
    """
    A child at the end of a command line, which takes the words of a command as they are.
    """
    options_class = Options
    child_is_immediate_subprocess = False
    create_child_args = {'stderr_pipe': True}

    def _get_name(self):
        words = [word for word in self.options.argv if word != '--']
        return u'ansible.' + mitogen.core.to_text(words[-1])

    def get_boot_command(self):
        return self.options.argv + super(Connection, self).get_boot_command()


class ShellConnection(Connection):
    """
    A child at the end of a command line, which hands the words of a command to a shell.
    """

    def get_boot_command(self):
        boot = mitogen.parent.Connection.get_boot_command(self)
        return self.options.argv + [shlex.quote(mitogen.core.to_text(word)) for word in boot]


#: Kinds of specifications of hosts.
CONNECTIONS = {'ssh': ShellConnection, 'container': Connection}


class Job(object):
    """
    Something that a zygote does. Events come from `get`, marshalled.
    """

    def __init__(self, target, key, number):
        self.target, self.key, self.number = target, key, number
        self.events = queue.SimpleQueue()

    def get(self, timeout):
        """
        :raises mitogen.core.TimeoutError: nothing came in time.
        :raises mitogen.core.ChannelError: the host is gone.
        """
        try:
            return self.events.get(timeout=timeout)
        except queue.Empty:
            raise mitogen.core.TimeoutError('nothing yet')

    def close(self):
        pass


class RemoteJob(Job):
    def __init__(self, target, key, number):
        super(RemoteJob, self).__init__(target, key, number)
        self.receiver = mitogen.core.Receiver(
            target.router, respondent=target.context, max_bytes=2 * target.router.max_message_size)

    def get(self, timeout):
        return answers.content(self.receiver.get(timeout).unpickle())

    def close(self):
        self.receiver.close()


class Target(object):
    """
    :ivar lock: held while payloads and jobs are handed to the hub, so that the one is there before
        the other.
    """
    job_class = Job

    def __init__(self, router):
        self.router = router
        self.lock = threading.Lock()
        self.numbers = 0
        self.payloads, self.texts = set(), set()

    def start_job(self, key, start, frame, payloads=()):
        """
        :param payloads: each is (digest, name, members, texts), and needed.
        :raises ConnectError: there is no context.
        """
        with self.lock:
            self.numbers += 1
            job = self.job_class(self, key, self.numbers)
            for payload in payloads:
                if payload[0] not in self.payloads:
                    self.give(*payload)
            self.request(job, start, frame, [payload[0] for payload in payloads])
        return job

    def give(self, digest, name, members, texts):
        missing = [(key, texts[key]) for _, key in members if key not in self.texts]
        self.add_payload(digest, name, members, missing)
        self.payloads.add(digest)
        self.texts.update(key for key, _ in missing)


class LocalTarget(Target):
    """
    The controller's own machine.
    """

    def __init__(self, router):
        super(LocalTarget, self).__init__(router)
        self.hub = mitogen.ansible.hub.Hub(zygote_source())

    def request(self, job, start, frame, digests):
        self.hub.request(job.events.put, job.key, start, job.number, frame, digests)

    def add_payload(self, digest, name, members, texts):
        self.hub.add_payload(digest, name, members, dict(texts))

    def say(self, key, data):
        self.hub.say(key, data)

    def cancel(self, job):
        self.hub.cancel(job.key, job.number)

    def close(self):
        self.hub.close()


class RemoteTarget(Target):
    """
    A host, as a login there.

    :param kind: the class of the connection.
    :param tuple argv: see `Options`.
    :param pythons: interpreters to try first.
    """
    job_class = RemoteJob

    def __init__(self, router, kind, argv, pythons, timeout):
        super(RemoteTarget, self).__init__(router)
        find = FIND_PYTHON % (' '.join(map(shlex.quote, pythons)),)
        self.context = router._connect(
            kind, argv=list(argv), python_path=['/bin/sh', '-c', find, 'sh'], connect_timeout=timeout)
        self.lost = False
        self.archives = set()
        mitogen.core.listen(self.context, 'disconnect', self.on_disconnect)
        self.tell(mitogen.ansible.remote.begin, mitogen.core.Blob(zygote_source()))

    def on_disconnect(self):
        self.lost = True

    def tell(self, func, *args):
        self.context.call_no_reply(func, *args)

    def request(self, job, start, frame, digests):
        self.tell(mitogen.ansible.remote.request, job.receiver.to_sender(), job.key, start, job.number,
                  mitogen.core.Blob(frame), [blob(digest) for digest in digests])

    def add_payload(self, digest, name, members, texts):
        self.tell(mitogen.ansible.remote.add_payload, blob(digest), name,
                  [(path, blob(key)) for path, key in members], [(blob(key), blob(text)) for key, text in texts])

    def say(self, key, data):
        self.tell(mitogen.ansible.remote.say, key, mitogen.core.Blob(data))

    def cancel(self, job):
        self.tell(mitogen.ansible.remote.cancel, job.key, job.number)

    def close(self):
        self.context.shutdown(wait=True)

    def fragment(self, operation):
        return answers.fragment(self.context.call(mitogen.ansible.remote.fragment, operation))

    def put(self, local, path):
        """
        Send a file. The archive in a module travels once.
        """
        if mitogen.ansible.sent.is_module(path) and self.put_module(local, path):
            return
        calls = []
        with open(local, 'rb') as fp:
            mode = os.fstat(fp.fileno()).st_mode & 0o777
            first = True
            while True:
                data = fp.read(PIECE)
                if not data and not first:
                    break
                calls.append(self.context.call_async(
                    mitogen.ansible.remote.put, path, mode, mitogen.core.Blob(data), first))
                first = False
                if len(calls) >= WINDOW:
                    calls.pop(0).get().unpickle()
        for call in calls:
            call.get().unpickle()

    def put_module(self, local, path):
        """
        Send a file that has an archive in it, or return False.
        """
        with open(local, 'rb') as fp:
            data, mode = fp.read(), os.fstat(fp.fileno()).st_mode & 0o777
        found = mitogen.ansible.payload.find_archive(data)
        if not found:
            return False
        head, archive, tail = found
        digest = hashlib.sha1(archive).digest()
        with self.lock:
            if digest not in self.archives:
                if len(self.archives) >= MOST_ARCHIVES:
                    return False
                self.archives.add(digest)
                self.tell(mitogen.ansible.remote.keep_archive, blob(digest), blob(archive))
        self.context.call(mitogen.ansible.remote.put_module, path, mode, blob(head), blob(digest), blob(tail))
        return True

    def get(self, path, local):
        """
        Fetch a regular file.
        """
        size, mode = answers.size_and_mode(self.context.call(mitogen.ansible.remote.describe, path))
        # The host tells the size: no memory is taken for the file before it comes.
        offsets = iter(range(0, size, PIECE))
        fd = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode | 0o200)
        with os.fdopen(fd, 'wb') as fp:
            calls = collections.deque()
            self.ask_for_pieces(calls, path, itertools.islice(offsets, WINDOW))
            while calls:
                fp.write(answers.content(calls.popleft().get().unpickle())[:PIECE])
                self.ask_for_pieces(calls, path, itertools.islice(offsets, 1))

    def ask_for_pieces(self, calls, path, offsets):
        for offset in offsets:
            calls.append(self.context.call_async(mitogen.ansible.remote.get, path, offset, PIECE))


def blob(data):
    return data if data is None else mitogen.core.Blob(data)


class Targets(object):
    """
    All targets, each made when it is asked for.
    """

    def __init__(self, router):
        self.router = router
        #: Guards the rest.
        self.lock = threading.Lock()
        self.known = {}   # specification -> Target
        self.making = {}  # specification -> Lock
        self.failed = {}  # specification -> (time, text)

    def get(self, spec):
        """
        :param spec: ('local',), or a key of `CONNECTIONS`, command line, interpreters and seconds.
        :raises ConnectError: it cannot be had, or could not a moment ago.
        """
        name = spec[:2]
        with self.lock:
            target = self.known.get(name)
            if target is not None and not getattr(target, 'lost', False):
                return target
            making = self.making.setdefault(name, threading.Lock())
        with making:
            with self.lock:
                target = self.known.get(name)
                if target is not None and not getattr(target, 'lost', False):
                    return target
                when, text = self.failed.get(spec, (0, ''))
            if text and time.monotonic() < when + FORGET:
                raise ConnectError(text)
            target = self.make(spec)
            with self.lock:
                self.known[name] = target
            return target

    def is_connected(self, spec):
        with self.lock:
            target = self.known.get(spec[:2])
            return target is not None and not getattr(target, 'lost', False)

    def make(self, spec):
        try:
            if spec[0] == 'local':
                return LocalTarget(self.router)
            return RemoteTarget(self.router, CONNECTIONS[spec[0]], *spec[1:])
        except (mitogen.core.Error, OSError) as error:
            with self.lock:
                self.failed[spec] = time.monotonic(), str(error)
            raise ConnectError(str(error))

    def reset(self, spec):
        """
        Forget a target, and end its context.
        """
        with self.lock:
            self.failed = dict((key, value) for key, value in self.failed.items() if key[:2] != spec[:2])
            target = self.known.pop(spec[:2], None)
        if target is not None:
            target.close()

    def close(self):
        with self.lock:
            targets = list(self.known.values())
        for target in targets:
            if isinstance(target, LocalTarget):
                target.close()
