"""
The program `mitogen`, and its commands that run those of Ansible.
"""

import os
import subprocess
import sys

import mitogen.ansible
import mitogen.core
import testlib


def run(*args, **env):
    done = subprocess.run(
        [sys.executable, '-m', 'mitogen.command'] + list(args), env=dict(os.environ, **env), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, cwd='/')
    return done.returncode, done.stdout


def test_it_tells_which_core_runs():
    status, output = run('about')
    assert status == 0
    assert 'core    ' + mitogen.core.CORE in output


def test_it_prints_the_folder_for_a_configuration():
    status, output = run('ansible')
    assert (status, output) == (0, mitogen.ansible.plugin_path() + '\n')
    plugins = sorted(name for name in os.listdir(mitogen.ansible.plugin_path()) if name.endswith('.py'))
    assert plugins == ['local.py', 'ssh.py']


def test_it_runs_a_program_of_ansible_with_the_plugins_switched_on(tmp_path):
    program = tmp_path / 'ansible-playbook'
    program.write_text('#!/bin/sh\necho "$ANSIBLE_CONNECTION_PLUGINS"; echo "$@"; exit 3\n')
    program.chmod(0o755)
    # Not the one that may stand beside this interpreter.
    other = tmp_path / 'python'
    other.symlink_to(os.path.realpath(sys.executable))
    code = 'import sys; sys.executable = %r; import mitogen.command; sys.exit(mitogen.command.main(sys.argv[1:]))' % (str(other),)
    done = subprocess.run(
        [sys.executable, '-c', code, 'ansible-playbook', '--check', 'play.yml', '-h'], stdout=subprocess.PIPE, text=True, cwd='/',
        env=dict(os.environ, ANSIBLE_CONNECTION_PLUGINS='/mine'))
    assert done.returncode == 3
    assert done.stdout == mitogen.ansible.plugin_path() + ':/mine\n--check play.yml -h\n'


def test_it_says_what_it_can_do():
    status, output = run()
    assert status == 2
    assert 'ansible-playbook' in output
    status, output = run('nothing-of-the-kind')
    assert status == 2
    assert 'invalid choice' in output
