"""
Feeds made-up output of a starting child to the protocols that read it until the child is ready, and
compares what they do with a plain walk over the lines.

    python tests/fuzz/bootstrap_fuzz.py --seconds 60

The protocols are in pure Python and the same for both cores. An input that breaks a rule is
printed, and the exit status is 1; --replay FILE... runs inputs again. test_fuzzers.py replays those
that fuzz_corpus.py has.
"""

import argparse
import random
import re
import sys
import time
from unittest import mock

import mitogen.core
import mitogen.doas
import mitogen.parent
import mitogen.ssh
import mitogen.su
import mitogen.sudo

import fuzz_corpus

WORDS = [
    b'MITO000', b'MITO000 1 30b07f0', b'MITO000 0 20712f0', b'MITO000 9 9.9', b'MITO001', b'MITO002', b'MITO00',
    b'MITO000 1 30b07f0 ab12', b'MITO000 0 20712f0 ab12', b'MITO002 cd34', b' ab12', b' cd34',
    b'\n', b'\n', b'\n', b'\r\n', b'\0', b'\xff\xfe', b'Password: ', b'password:', b'mitogen-sudo-prompt:', b'[sudo] password for x: ',
    b'Sorry, try again.', b' ',
    b'Permission denied (publickey,password).', b'Are you sure you want to continue connecting (yes/no)? ', b'su: ',
    b'WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!', b'Last login: today', b'MI\x00\x05', b'x' * 3000,
    b'\x1b[0m', b'doas: Authorization failed', b'Authentication failure', b'(mitogen@host) ', b'M', b'MITO', b'2',
]

PROTOCOLS = [
    mitogen.parent.BootstrapProtocol, mitogen.su.SetupBootstrapProtocol, mitogen.ssh.SetupProtocol,
    mitogen.sudo.SetupProtocol, mitogen.doas.BootstrapProtocol, mitogen.parent.LogProtocol,
]


class Connection(object):
    """
    The part of a connection that the protocols see.
    """
    STAGE_STARTED = mitogen.parent.Connection.STAGE_STARTED
    STAGE_ANSWERED = mitogen.parent.Connection.STAGE_ANSWERED
    STAGE_SENT = mitogen.parent.Connection.STAGE_SENT
    _stage = mitogen.parent.Connection.STAGE_STARTED
    _pending = True
    _stage_nonce, _ready_nonce = 'ab12', 'cd34'

    def __init__(self, has_password):
        self.options = mock.Mock(password=u'hunter2' if has_password else None, check_host_keys='accept')
        self._router = mock.Mock()
        self.completed = 0
        self.failures = []
        self.after = []
        self.next_protocol = mock.Mock()
        self.next_protocol.on_receive = lambda broker, buf: self.after.append(bytes(buf))

    def _enter_stage(self, stage):
        self._stage = stage

    def get_preamble(self):
        return b'long'

    def _get_preamble_for(self, python, func):
        func(self.get_preamble())

    def _get_short_preamble(self):
        return b'short'

    def _complete_connection(self):
        self.completed += 1
        self._pending = False
        self.stream.set_protocol(self.next_protocol)

    def _fail_connection(self, exc):
        self.failures.append(exc)


def generate(rng):
    return b''.join(rng.choice(WORDS) for _ in range(rng.choice((3, 10, 30))))


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at:at + rng.randrange(1, 9)] = b''
        elif kind == 1:
            data[at:at] = rng.choice(WORDS)
        elif kind == 2 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 3:
            data[at:at] = data[at:at + rng.randrange(60)] * rng.choice((1, 1, 40))
    return bytes(data)


def expected(data):
    """
    Return (whether the first stage is answered, whether the child is ready, what follows that), by
    a plain walk.
    """
    answered = False
    while b'\n' in data:
        line, _, data = data.partition(b'\n')
        if re.search(b'MITO000 [01] [0-9a-f]{7,8} [0-9a-f]', line):
            answered = answered or bool(re.search(b'MITO000 [01] [0-9a-f]{7,8} ab12(?![0-9a-f])', line))
        elif b'MITO001' not in line and b'MITO002 cd34' in line:
            return answered, True, data
    return answered, False, b''


def try_one(data, rng):
    """
    Feed the data in pieces to each protocol; AssertionError when one does not do what it should.
    """
    for cls in PROTOCOLS:
        bootstraps = issubclass(cls, mitogen.parent.BootstrapProtocol)
        conn = Connection(rng.random() < 0.5)
        if cls is mitogen.doas.BootstrapProtocol:
            conn.options = mitogen.doas.Options(max_message_size=1, password=conn.options.password)
        elif cls is mitogen.su.SetupBootstrapProtocol:
            conn.options = mitogen.su.Options(max_message_size=1, password=conn.options.password)
        args = {'broker': mock.Mock()} if bootstraps else {}
        if cls is mitogen.doas.BootstrapProtocol:
            args['options'] = conn.options
        stream = cls.build_stream(**args)
        stream.name = u'fuzz'
        stream.conn = conn
        conn.stream = stream
        protocol = stream.protocol
        if cls is mitogen.su.SetupBootstrapProtocol:
            protocol.watch_for(conn.options)
        elif cls is mitogen.sudo.SetupProtocol:
            protocol._watch_for(mitogen.sudo.PASSWORD_PROMPT)
        writer = protocol._writer = mock.Mock()
        whole = rng.random() < 0.2
        at = 0
        while at < len(data):
            size = len(data) if whole else rng.choice((1, 3, 20, 100, 5000))
            if stream.protocol is protocol:
                stream.protocol.on_receive(mock.Mock(), data[at:at + size])
                assert len(protocol._trailer) <= protocol.max_tail
            else:
                conn.after.append(data[at:at + size])
            at += size
        written = b''.join(args[0][0] for args in writer.write.call_args_list)
        # One password at most, however often it is asked for; ssh may have to give it to hosts on
        # the way.
        assert cls is mitogen.ssh.SetupProtocol or written.count(b'hunter2') <= 1
        assert len(protocol.logged_lines) <= protocol.history_size
        if bootstraps and max(len(line) for line in data.split(b'\n')) < protocol.max_tail:
            answered, ready, after = expected(data)
            asked = re.findall(b'[CS]0000000.(?:long|short)', written)
            assert (len(asked), conn.completed) == (int(answered), int(ready)), (cls, written, conn.completed)
            assert b''.join(conn.after) == after
        elif not bootstraps:
            assert not conn.completed


def main():
    parser = argparse.ArgumentParser(description='Fuzz the protocols of a starting child.')
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int)
    parser.add_argument('--replay', nargs='+', metavar='FILE')
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(2 ** 32)
    rng = random.Random(seed)
    if args.replay:
        for path in args.replay:
            with open(path, 'rb') as fp:
                try_one(fp.read(), rng)
            print('%s: well' % (path,))
        return 0
    print('seed %d' % (seed,))
    rows = list(fuzz_corpus.files('bootstrap').values()) + fuzz_corpus.rows('bootstrap')
    count = 0
    end = time.time() + args.seconds
    while time.time() < end:
        data = generate(rng) if rng.random() < 0.5 else mutate(rng, rng.choice(rows))
        try:
            try_one(data, rng)
        except Exception:
            print('input: %r' % (data,))
            raise
        count += 1
    print('%d inputs' % (count,))
    return 0


if __name__ == '__main__':
    sys.exit(main())
