"""
Networks of two hosts, ours and a network namespace, that are cut, or lose and delay packets. The
Debian package iproute2 has the program; where the system makes no namespace or device for us, the
test is skipped.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time

import pytest

import accounts

# linux/if_tun.h
TUNSETIFF = 0x400454ca
IFF_TUN = 1
IFF_NO_PI = 0x1000


class Network(object):
    """
    A network namespace, and a link to it from ours.

    :ivar address: our own address on it.
    """
    #: The second number of the addresses, and the letters of the devices' names: both of a class
    #: can be there at once.
    second, letters = 203, 'mg'

    def __init__(self):
        accounts.need_root()
        self.ip = accounts.need_program('ip', 'iproute2')
        number = os.getpid() % 60000
        self.name = 'mitogen-%s-%d' % (self.letters, number)
        self.ours, self.theirs = '%s%da' % (self.letters, number), '%s%db' % (self.letters, number)
        base = '10.%d.%d.%d' % (self.second, number >> 6 & 255, (number & 63) << 2)
        prefix, _, last = base.rpartition('.')
        self.address = '%s.%d' % (prefix, int(last) + 1)
        if subprocess.call([self.ip, 'netns', 'add', self.name], stderr=subprocess.DEVNULL):
            pytest.skip('no network namespace can be made here')
        try:
            self.make_devices()
            self.run('addr', 'add', self.address + '/30', 'dev', self.ours)
            self.run('link', 'set', self.ours, 'up')
            self.run('-n', self.name, 'addr', 'add', '%s.%d/30' % (prefix, int(last) + 2), 'dev', self.theirs)
            self.run('-n', self.name, 'link', 'set', self.theirs, 'up')
        except (subprocess.CalledProcessError, OSError):
            self.close()
            pytest.skip('no pair of network devices can be made here')

    def make_devices(self):
        self.run('link', 'add', self.ours, 'type', 'veth', 'peer', 'name', self.theirs, 'netns', self.name)

    def run(self, *args):
        subprocess.check_call((self.ip,) + args, stderr=subprocess.DEVNULL)

    def ssh(self, folder):
        """
        Return the path of a program, made in the folder, that runs ssh on the other host.
        """
        path = folder / 'ssh'
        path.write_text('#!/bin/sh\nexec %s netns exec %s %s "$@"\n' % (
            self.ip, self.name, accounts.need_program('ssh', 'openssh-client')))
        path.chmod(0o755)
        return str(path)

    def cut(self):
        self.run('link', 'set', self.ours, 'down')

    def mend(self):
        self.run('link', 'set', self.ours, 'up')

    def close(self):
        # Its devices end with it.
        subprocess.call([self.ip, 'netns', 'del', self.name])


class BadNetwork(Network):
    """
    One whose packets pass through us, which the kernel's netem does better where there is one. They
    are late by a time of their own each, so they overtake one another, and some never arrive.

    :ivar delay: (least, most) seconds.
    :ivar loss: the share of the packets that is lost, 0 to 1.
    :ivar counts: how many packets were passed on, and lost.
    """
    second, letters = 204, 'mb'

    def __init__(self, delay, loss):
        self.delay, self.loss = delay, loss
        self.counts = [0, 0]
        self.fds = []
        self.thread = None
        Network.__init__(self)

    def make_devices(self):
        for name in self.ours, self.theirs:
            self.fds.append(os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK))
            fcntl.ioctl(self.fds[-1], TUNSETIFF, struct.pack('16sH22x', name.encode(), IFF_TUN | IFF_NO_PI))
        self.run('link', 'set', self.theirs, 'netns', self.name)
        self.fds += os.pipe()
        self.thread = threading.Thread(target=self.pass_on, name='network')
        self.thread.start()

    def pass_on(self):
        rng = random.Random(1)
        late = []   # (when, number, to, packet)
        ours, theirs, stop, _ = self.fds
        while True:
            left = max(0, late[0][0] - time.monotonic()) if late else None
            ready, _, _ = select.select([ours, theirs, stop], [], [], left)
            if stop in ready:
                return
            for fd in ready:
                packet = os.read(fd, 65536)
                lost = rng.random() < self.loss
                self.counts[lost] += 1
                if not lost:
                    heapq.heappush(late, (time.monotonic() + rng.uniform(*self.delay), sum(self.counts),
                                          theirs if fd == ours else ours, packet))
            while late and late[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(late)
                try:
                    os.write(to, packet)
                except OSError:
                    # The device is down, or its queue full: a packet may be lost for that as well.
                    self.counts[1] += 1

    def close(self):
        if self.thread:
            os.write(self.fds[3], b'x')
            self.thread.join()
        for fd in self.fds:
            os.close(fd)
        Network.close(self)
