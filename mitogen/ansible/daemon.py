# SPDX-License-Identifier: BSD-3-Clause
"""
The daemon of a run: owns the contexts of all hosts while one of Ansible's
commands runs, and works for its workers, each of which is another process.

It is started with a socket that listens, and ends with the controller.
"""

from __future__ import absolute_import

import contextlib
import logging
import os
import select
import shutil
import socket
import sys
import threading
import time

import mitogen.core
import mitogen.master
import mitogen.ansible.kept
import mitogen.ansible.payload
import mitogen.ansible.target
from mitogen.ansible import answers, wire

LOG = logging.getLogger('mitogen.ansible')

#: Seconds between two looks whether a worker that waits is still there.
LOOK = 1.0

#: Seconds to wait when a worker cannot be accepted.
PAUSE = 0.1


class Worker(threading.Thread):
    """
    Serves one worker, for as long as it has its socket open.
    """

    def __init__(self, daemon, sock):
        super(Worker, self).__init__()
        self.daemon = True
        self.owner, self.sock = daemon, sock
        self.targets = daemon.targets

    def run(self):
        try:
            with self.sock:
                while True:
                    request = wire.receive(self.sock)
                    wire.send(self.sock, self.answer(*request))
        except wire.GoneError:
            # Its task is done, or has been given up.
            pass

    def answer(self, word, *args):
        """
        Return what the worker is told at last. The text of a failure, which Ansible shows, may be
        the host's.
        """
        found = self.outcome(word, *args)
        if found[0] == 'fail':
            found = found[:2] + (mitogen.core._printable(found[2], u'    '),) + found[3:]
        return found

    def outcome(self, word, *args):
        try:
            return getattr(self, 'on_' + word)(*args)
        except wire.GoneError:
            raise
        except mitogen.ansible.target.ConnectError as error:
            return 'fail', 'connect', str(error), self.owner.is_new(args[0])
        except mitogen.core.ChannelError as error:
            return 'fail', 'gone', str(error), False
        except Exception as error:
            LOG.debug('%s%r', word, args[:1], exc_info=True)
            return 'fail', 'error', '%s: %s' % (type(error).__name__, error), False

    def on_greet(self):
        """
        Return the core that runs here, to the first worker that asks.
        """
        core, self.owner.core = self.owner.core, None
        return 'done', core

    def on_payload(self, digest, name, archive):
        self.owner.payloads[digest] = (digest, name) + mitogen.ansible.payload.unpack(archive)
        return 'done',

    def on_job(self, spec, key, start, frame, digests):
        """
        Have a zygote do something, and wait for it.
        """
        payloads = []
        for digest in digests:
            if digest not in self.owner.payloads:
                return 'need', digest
            payloads.append(self.owner.payloads[digest])
        target = self.targets.get(spec)
        job = target.start_job(key, start, frame, payloads)
        try:
            return self.follow(target, job)
        except wire.GoneError:
            target.cancel(job)
            raise
        except Exception as error:
            # The task may have begun, so it must not be run again in another
            # way.
            LOG.debug('job %d', job.number, exc_info=True)
            return 'fail', 'gone', '%s: %s' % (type(error).__name__, error), False
        finally:
            job.close()

    def follow(self, target, job):
        while True:
            try:
                event = answers.read(job.get(LOOK))
            except mitogen.core.TimeoutError:
                self.look()
                continue
            if event[0] != 'prompt':
                return event + (True,) if event[0] == 'fail' else event
            wire.send(self.sock, event)
            word, data = wire.receive(self.sock)
            if word == 'give up':
                target.cancel(job)
                return 'done',
            if data:
                target.say(job.key, data)

    def look(self):
        """
        :raises GoneError: the worker has closed its socket.
        """
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if poll.poll(0):
            # A worker says nothing while it waits, so this is its end.
            raise wire.GoneError('the worker has given up')

    def on_is_connected(self, spec):
        return 'done', self.targets.is_connected(spec)

    def on_fragment(self, spec, operation):
        return 'done', self.targets.get(spec).fragment(operation)

    def on_put(self, spec, local, path):
        self.targets.get(spec).put(local, path)
        return 'done',

    def on_get(self, spec, path, local):
        self.targets.get(spec).get(path, local)
        return 'done',

    def on_reset(self, spec):
        self.targets.reset(spec)
        return 'done',


class Daemon(object):
    """
    :param listener: socket.
    :param int controller: process that it works for.
    :param str home: folder for what is kept from run to run, or empty.
    """

    def __init__(self, listener, controller, home):
        self.listener, self.controller = listener, controller
        self.router = mitogen.master.Router()
        self.kept = mitogen.ansible.kept.Kept(home)
        self.kept.load(self.router)
        self.targets = mitogen.ansible.target.Targets(self.router)
        self.payloads = {}  # digest -> (digest, name, members, texts)
        self.said = set()
        self.core = mitogen.core.CORE

    def is_new(self, spec):
        """
        Return whether no worker has been told yet of the problem with a
        target.
        """
        new = spec not in self.said
        self.said.add(spec)
        return new

    def run(self):
        """
        Accept workers until the controller ends.
        """
        poll = select.poll()
        poll.register(self.listener, select.POLLIN)
        life = life_of(self.controller)
        if life is not None:
            poll.register(life, select.POLLIN)
        while True:
            ready = poll.poll(None if life is not None else 1000)
            if any(fd == life for fd, _ in ready) or (life is None and not is_alive(self.controller)):
                return
            if ready:
                self.accept()

    def accept(self):
        """
        Begin to serve one worker. If there is no descriptor left for it, it waits in the queue.
        """
        try:
            sock, _ = self.listener.accept()
        except OSError:
            LOG.error('no worker can be accepted', exc_info=True)
            time.sleep(PAUSE)
            return
        try:
            if wire.is_same_user(sock):
                return Worker(self, sock).start()
        except RuntimeError:
            LOG.error('no thread can be started for a worker', exc_info=True)
        sock.close()

    def close(self):
        self.targets.close()
        self.router.broker.shutdown()
        self.router.broker.join()
        self.kept.save(self.router)


def life_of(pid):
    """
    Return a descriptor that is ready once a process has ended, or None where
    the system has no such thing.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def remove(path, controller):
    """
    Remove the socket, and the temporary folder that a controller which was killed has left.
    """
    folder = os.path.dirname(path)
    if os.path.basename(folder).startswith('ansible-local-%d' % (controller,)):
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.unlink(path)


def main():
    fd, controller, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    listener = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    if os.environ.get('MITOGEN_ANSIBLE_LOG'):
        logging.basicConfig(filename=os.environ['MITOGEN_ANSIBLE_LOG'], level=logging.DEBUG)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    daemon = Daemon(listener, controller, sys.argv[4])
    try:
        daemon.run()
    finally:
        remove(path, controller)
        listener.close()
        daemon.close()
        # Daemon threads may wait for a file system, and must not delay our
        # end.
        os._exit(0)


if __name__ == '__main__':
    main()
