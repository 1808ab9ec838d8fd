"""
A playbook with a loop of 100 commands over ssh: Ansible's own strategy, upstream's package, and this one. Medians of
interleaved runs. Needs what tests/ansible needs: root, sshd, and a place where pip finds Ansible.

    python benchmarks/ansible.py [ROUNDS]
"""

import contextlib
import os
import statistics
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TESTS = os.path.join(os.path.dirname(HERE), 'tests')
# Not this folder: its own name would be taken for Ansible's package.
sys.path[:] = [TESTS, os.path.join(TESTS, 'ansible')] + [path for path in sys.path if path and path != HERE]

import ansible_env  # noqa: E402
import test_ansible  # noqa: E402

KINDS = [
    ('plain Ansible', 'ours', 'linear', None),
    ('upstream', 'upstream', 'mitogen_linear', None),
    ('ours, native', 'ours', 'mitogen_linear', 'native'),
    ('ours, pure', 'ours', 'mitogen_linear', 'pure'),
]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    envs = dict((kind, ansible_env.Environment(kind).make()) for kind in ('ours', 'upstream'))
    seconds = dict((name, []) for name, _, _, _ in KINDS)
    with contextlib.ExitStack() as stack:
        site = test_ansible.Site(envs['ours'], stack)
        for number in range(rounds):
            for name, env, strategy, core in KINDS:
                site.env = envs[env]
                # Ansible takes a comma in a path for the end of it.
                folder = '%s-%d' % (name.replace(',', '').replace(' ', '-'), number)
                run = test_ansible.Run(site, folder, strategy, core)
                start = time.time()
                status = run.start('loop.yml').wait()
                seconds[name].append(time.time() - start)
                if status or [record['event'] for record in run.records()].count('item ok') != 100:
                    sys.exit(run.printed())
    for name, times in seconds.items():
        print('%-15s median %6.2f s  (%s)' % (
            name, statistics.median(times), ' '.join('%.2f' % value for value in times)))


if __name__ == '__main__':
    main()
