"""
A master for the tests of orphans: builds the tree that its arguments name, prints a line of JSON,
and waits.

Arguments: the kind of the tree, how busy it is, the interpreter of other users, and the name of
another user.
"""

import json
import os
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'targets'))

import mitogen.core    # noqa: E402
import mitogen.master  # noqa: E402

import targets          # noqa: E402
import waiting_targets  # noqa: E402


#: Name of a context -> that of its parent. While a test takes away c, b, a and the master, one
#: after the other, those below b, a and the master are as many levels as before: x, y with z, and e
#: with f and g. Contexts d, e and those below e go on, until their turn comes.
PARENTS = {
    'a': 'master', 'b': 'a', 'c': 'b', 'x': 'b', 'd': 'a', 'y': 'a', 'z': 'y', 'e': 'master', 'f': 'e', 'g': 'f',
}

#: Of kinds that have two levels.
PAIRS = {
    'pair': {'a': 'master', 'b': 'a'},
    'pairs': {'a': 'master', 'b': 'a', 'e': 'master', 'f': 'e', 'y': 'master', 'z': 'y'},
}

#: The levels that are other users' by sudo, or forks.
SUDO = {'sudo': 'ae', 'sudo_below': 'cxzg'}
ROOT = {'root': 'byf'}
FORKS = {'fork': 'aecxzg'}


def build(router, kind, parents, python, user):
    """
    Return {name: context}.
    """
    tree = {}
    for name, parent in parents.items():
        via = tree.get(parent)
        if name in SUDO.get(kind, ''):
            tree[name] = router.sudo(via=via, username=user, python_path=python)
        elif name in ROOT.get(kind, ''):
            tree[name] = router.sudo(via=via, username='root', python_path=python)
        else:
            tree[name] = (router.fork if name in FORKS.get(kind, '') else router.local)(via=via)
    return tree


def keep_busy(context, how, started):
    if how == 'sleep':
        context.call_no_reply(waiting_targets.say_and_sleep, started)
    elif how == 'spin':
        context.call_no_reply(waiting_targets.say_and_hold, started)
    elif how == 'threads':
        context.call(targets.leave_threads)
    elif how == 'deaf':
        context.call(targets.ignore_sigterm)
        context.call_no_reply(waiting_targets.say_and_sleep, started)
    elif how == 'service':
        context.call_service_async(waiting_targets.SleepyService, 'sleep', started=started)


def main(kind, how, python, user):
    router = mitogen.master.Router()
    parents = PAIRS.get(kind, PARENTS)
    tree = build(router, kind, parents, python, user)
    pids = dict((name, context.call(os.getpid)) for name, context in tree.items())
    with mitogen.core.Receiver(router) as started:
        for context in tree.values():
            keep_busy(context, how, started.to_sender())
        if how in ('sleep', 'spin', 'deaf', 'service'):
            for _ in tree:
                started.get()
    for line in iter(sys.stdin.readline, ''):
        # Asked what the tree is, or which of the others still answer.
        words = line.split()
        if words[0] == 'pids':
            answer = dict(pids, master=os.getpid())
        elif words[0] == 'parents':
            answer = parents
        elif words[0] == 'call':
            context = tree[words[1]]
            try:
                answer = context.call(os.getpid)
            except mitogen.core.ChannelError:
                answer = None
        elif words[0] == 'start':
            # Three more children, each at some moment of its start when the test strikes.
            def start(via):
                try:
                    router.local(via=via)
                except mitogen.core.Error:
                    pass
            for via in [None] + [tree[name] for name in words[2:]]:
                thread = threading.Thread(target=start, args=(via,))
                thread.daemon = True
                thread.start()
            time.sleep(float(words[1]))
            answer = True
        print(json.dumps(answer))
        sys.stdout.flush()


if __name__ == '__main__':
    main(*sys.argv[1:])
