"""
A master for the tests of orphans: builds the tree that its arguments name, prints a line of JSON, and waits.

Arguments: the kind of the tree, how busy it is, the interpreter of other users, and the name of another user.
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


def build(router, kind, python, user):
    """
    Return {name: (context, name of the parent)}; three levels below the master, or only the first two.
    """
    sudo = {'username': user, 'python_path': python}
    a = router.sudo(**sudo) if kind == 'sudo' else router.fork() if kind == 'fork' else router.local()
    b = router.sudo(via=a, username='root', python_path=python) if kind == 'root' else router.local(via=a)
    if kind == 'pair':
        return {'a': (a, 'master'), 'b': (b, 'a')}
    if kind == 'fork':
        c = router.fork(via=b)
    elif kind == 'sudo_below':
        c = router.sudo(via=b, **sudo)
    else:
        c = router.local(via=b)
    return {
        'a': (a, 'master'), 'b': (b, 'a'), 'c': (c, 'b'),
        # Beside them, what must go on when they end.
        'd': (router.local(via=a), 'a'), 'e': (router.local(), 'master'),
    }


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
    tree = build(router, kind, python, user)
    pids = dict((name, context.call(os.getpid)) for name, (context, _) in tree.items())
    with mitogen.core.Receiver(router) as started:
        for context, _ in tree.values():
            keep_busy(context, how, started.to_sender())
        if how in ('sleep', 'spin', 'deaf', 'service'):
            for _ in tree:
                started.get()
    for line in iter(sys.stdin.readline, ''):
        # Asked which of the others still answer.
        words = line.split()
        if words[0] == 'pids':
            answer = dict(pids, master=os.getpid())
        elif words[0] == 'call':
            context = tree[words[1]][0]
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
            for via in (None, tree['a'][0], tree['b'][0]):
                for _ in range(2):
                    thread = threading.Thread(target=start, args=(via,))
                    thread.daemon = True
                    thread.start()
            time.sleep(float(words[1]))
            answer = True
        print(json.dumps(answer))
        sys.stdout.flush()


if __name__ == '__main__':
    main(*sys.argv[1:])
