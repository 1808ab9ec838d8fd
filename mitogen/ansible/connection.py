# SPDX-License-Identifier: BSD-3-Clause
"""
Connection plugins: the base of ours. Each derives from a mix-in here and from Ansible's own plugin
of its name, which does everything that our mix-in does not handle.
"""

from __future__ import absolute_import

import marshal
import multiprocessing
import os
import re
import shlex

from ansible import constants
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

import mitogen.ansible.become
import mitogen.ansible.client
import mitogen.ansible.folder
import mitogen.ansible.fragments
import mitogen.ansible.hub
import mitogen.ansible.names
import mitogen.ansible.payload
import mitogen.ansible.sent
from mitogen.ansible.values import plain

MARSHAL = 2

ASSIGNMENT = re.compile(r'([A-Za-z_]\w*)=(.*)', re.S)

#: An interpreter reads these as it starts, so one that runs already cannot obey them.
READ_AT_START = re.compile(
    'PYTHON|LC_|LD_|MALLOC_|GLIBC_|(LANG|LANGUAGE|HOME|SSL_CERT_FILE|SSL_CERT_DIR|OPENSSL_CONF|TMPDIR|TEMP|TMP)$')

#: An archive begins so, as base64.
ARCHIVE = b'UEsDB'

#: Ansible before 2.20 adds this to a command, for the sake of terminals.
SLEEP = ' && sleep 0'

DISPLAY = Display()


class FallBack(Exception):
    """
    Raised to leave the task to Ansible's own plugin.

    :param bool usual: nothing is wrong, so the reason is shown with ``-vvv`` only.
    """

    def __init__(self, reason, usual=True):
        super(FallBack, self).__init__(reason)
        self.usual = usual


class Mixin(object):
    """
    :ivar _fast: client of the daemon.
    """
    has_pipelining = True

    def __init__(self, *args, **kwargs):
        super(Mixin, self).__init__(*args, **kwargs)
        controller = int(kwargs.get('ansible_playbook_pid') or controller_pid())
        self._fast = mitogen.ansible.client.Client(plain(constants.DEFAULT_LOCAL_TMP), controller, mitogen.ansible.folder.home())
        self._becoming = None
        self._interpreter = ''
        self._notes = mitogen.ansible.fragments.Notes(self._shell)
        self._sent = mitogen.ansible.sent.Sent()

    def set_become_plugin(self, plugin):
        super(Mixin, self).set_become_plugin(plugin)
        self._becoming = mitogen.ansible.become.Become(plugin) if plugin is not None else None

    def is_pipelining_enabled(self, wrap_async=False):
        return self._can_be_fast() and not wrap_async

    def get_option(self, option, hostvars=None):
        # Ansible before 2.19 asks for this alone.
        if option == 'pipelining' and self._can_be_fast() and not hasattr(ConnectionBase, 'is_pipelining_enabled'):
            return True
        return super(Mixin, self).get_option(option, hostvars=hostvars)

    def _can_be_fast(self):
        return not getattr(self._shell, '_IS_WINDOWS', False)

    def close(self):
        self._fast.close()
        super(Mixin, self).close()

    # The methods that Ansible calls.

    def put_file(self, in_path, out_path):
        if os.path.isfile(in_path):
            self._sent.note(in_path, out_path)
        return self._put_file(in_path, out_path)

    def _put_file(self, in_path, out_path):
        return super(Mixin, self).put_file(in_path, out_path)

    def exec_command(self, cmd, in_data=None, sudoable=True):
        try:
            return self._try_command(plain(cmd), in_data, sudoable)
        except FallBack as reason:
            self._say_why(reason)
        return super(Mixin, self).exec_command(cmd, in_data=in_data, sudoable=sudoable)

    def _say_why(self, reason):
        text = "mitogen: %s: Ansible's own way is used: %s" % (self._play_context.remote_addr, reason)
        DISPLAY.vvv(text) if reason.usual else DISPLAY.v(text)

    def _try_command(self, cmd, in_data, sudoable):
        """
        :raises FallBack: this is not for us.
        """
        words = split(cmd)
        if not self._can_be_fast() or words is None:
            raise FallBack('this is not for a POSIX shell')
        text = words[2] if len(words) == 3 and words[1] == '-c' else cmd
        if text.endswith(SLEEP):
            text = text[:-len(SLEEP)]
        inner = self._becoming and sudoable and self._becoming.unwrap(text)
        if in_data:
            return self._run_module(cmd, inner or text, bool(inner), plain(in_data))
        if inner or sudoable:
            return self._start_background(inner or text, bool(inner)) or self._run_sudoable(cmd)
        return self._run_fragment(cmd, text)

    def _run_module(self, cmd, text, becomes, data):
        """
        Run what is piped into an interpreter.
        """
        environ, words = assignments(split(text) or [])
        if len(words) != 1:
            raise FallBack('this is more than an interpreter')
        self._interpreter = words[0]
        payload, answer = mitogen.ansible.payload.take_apart(data), ('',)
        if payload is not None and not any(map(READ_AT_START.match, environ)):
            answer = self._run_payload(payload, environ, becomes)
            if answer[0] == 'done':
                return answer[1:]
        if (payload is None and ARCHIVE in data) or answer[0] == 'unknown':
            mitogen.ansible.names.say_once('wrapper', 'modules are started in a way that is not known: each has an '
                                                      'interpreter of its own')
        # Only a shell gives the wrapper's text its environment.
        return self._job(becomes, ('command', ['/bin/sh', '-c', text], data, self._folder()))[1:]

    def _run_payload(self, payload, environ, becomes):
        return self._job(becomes, ('run', payload.digest, payload.call, environ, self._folder()), [payload])

    def _start_background(self, text, becomes):
        """
        Start an asynchronous task, or return None if this is no command that does.
        """
        environ, words = assignments(split(text) or [])
        found = self._sent.read_command(words)
        if not found or any(map(READ_AT_START.match, environ)):
            return None
        self._interpreter = words[0]
        wrapper, module = found
        if module is None:
            answer = self._run_payload(wrapper, environ, becomes)
        else:
            frame = ('background', wrapper.digest, wrapper.call, module.digest, module.call, environ, self._folder())
            answer = self._job(becomes, frame, [wrapper, module])
        return answer[1:] if answer[0] == 'done' else None

    def _job(self, becomes, frame, payloads=()):
        """
        Have a zygote do something that needs these payloads. Return its answer.
        """
        while True:
            answer = self._try_job(becomes, frame, [payload.digest for payload in payloads])
            if answer[0] != 'need':
                return answer
            payload, = [payload for payload in payloads if payload.digest == answer[1]]
            taken = self._ask('payload', payload.digest, payload.name, payload.archive)
            if taken[0] == 'fail':
                raise FallBack('the archive of a module cannot be read: %s' % (taken[2],), usual=False)

    def _try_job(self, becomes, frame, digests):
        boot, prompter, user = [self._interpreter, '-c', mitogen.ansible.hub.BOOT], None, ''
        start = boot if self._interpreter else [], False
        if becomes:
            start, prompter = self._becoming.start(boot, self._play_context.executable or '/bin/sh')
            user = self._becoming.key()
        key = '%s %s' % (user, self._interpreter)
        answer = self._ask('job', self._target(), key, plain(start), marshal.dumps(plain(frame), MARSHAL), digests)
        output = b''
        while answer[0] == 'prompt':
            output = answer[1]
            typed = prompter.look(output) if prompter else b''
            answer = self._more('say', typed) if typed is not None else self._more('give up', b'')
            if typed is None:
                raise FallBack('the password is not right')
        return self._judge(answer, prompter)

    def _judge(self, answer, prompter=None):
        if answer[0] != 'fail':
            return answer
        word, text, is_new = answer[1:]
        if word == 'gone':
            raise AnsibleConnectionFailure('the connection to the host was lost: %s' % (text,))
        if word == 'start' and prompter is not None and prompter.plugin.require_tty:
            raise AnsibleError(prompter.explain(text.encode('utf-8')))
        raise FallBack(text, usual=not is_new)

    def _ask(self, *request):
        try:
            if DISPLAY.verbosity and self._fast.sock is None:
                self._say_core(*self._fast.ask('greet'))
            return self._fast.ask(*request)
        except mitogen.ansible.client.DaemonError as error:
            if request[0] == 'job' and 'ended' in str(error):
                raise AnsibleConnectionFailure(str(error))
            raise FallBack(str(error), usual=False)

    def _say_core(self, word, core):
        if core:
            DISPLAY.v('mitogen: connections are fast, on the %s core' % (core,))

    def _more(self, *answer):
        try:
            return self._fast.more(*answer)
        except mitogen.ansible.client.DaemonError as error:
            raise AnsibleConnectionFailure(str(error))

    def _folder(self):
        """
        Return where a task runs, empty for wherever a login is.
        """
        return ''


class RemoteMixin(Mixin):
    """
    For plugins whose commands run elsewhere: in a context of the daemon.
    """

    def _run_fragment(self, cmd, text):
        operation = self._notes.meanings.get(text)
        if operation is not None:
            found = self._judge(self._ask('fragment', self._target(), plain(operation)))[1]
            if found is not None:
                return found[0], found[1].encode('utf-8', 'surrogateescape'), b''
        return self._job(False, ('command', ['/bin/sh', '-c', cmd], b'', ''))[1:]

    def _put_file(self, in_path, out_path):
        if os.path.isfile(in_path) and self._can_be_fast():
            try:
                return self._judge(self._ask('put', self._target(), os.path.abspath(plain(in_path)), plain(out_path)))
            except FallBack as reason:
                self._say_why(reason)
        return self._put_slowly(in_path, out_path)

    def _put_slowly(self, in_path, out_path):
        return super(RemoteMixin, self)._put_file(in_path, out_path)

    def fetch_file(self, in_path, out_path):
        if self._can_be_fast():
            try:
                return self._judge(self._ask('get', self._target(), plain(in_path), os.path.abspath(plain(out_path))))
            except FallBack as reason:
                self._say_why(reason)
        return self._fetch_slowly(in_path, out_path)

    def _fetch_slowly(self, in_path, out_path):
        return super(RemoteMixin, self).fetch_file(in_path, out_path)

    def reset(self):
        try:
            self._ask('reset', self._target())
        except (FallBack, AnsibleError):
            # Ansible's plugin will report the error.
            pass
        if hasattr(super(RemoteMixin, self), 'reset'):
            super(RemoteMixin, self).reset()


class SSHMixin(RemoteMixin):
    """
    For plugins whose commands run at the end of a command line of ssh.
    """

    #: The command line of ssh and the seconds for a connection, until an option changes.
    _ssh = None

    def set_options(self, *args, **kwargs):
        self._ssh = None
        super(SSHMixin, self).set_options(*args, **kwargs)

    def set_option(self, *args, **kwargs):
        self._ssh = None
        super(SSHMixin, self).set_option(*args, **kwargs)

    def _target(self):
        if self._ssh is None:
            self._ssh = self._make_argv(), float(self.get_option('timeout') or 10) + 20
        argv, seconds = self._ssh
        spec = ('ssh', tuple(os.fsdecode(bytes(word)) for word in argv),
                (self._interpreter,) if self._interpreter else (), seconds)
        if self._has_password():
            self._log_in(argv, spec)
        return spec

    def _make_argv(self):
        """
        Return the command line of ssh, without a program before it that types a password: our
        connections need none, and the descriptor that this program reads it from differs from
        worker to worker.
        """
        self.host = self.get_option('host') or self._play_context.remote_addr
        program = self.get_option('ssh_executable')
        argv = self._build_command(program, 'ssh', self.host)
        pipe, self.sshpass_pipe = getattr(self, 'sshpass_pipe', None), None
        for fd in pipe or ():
            os.close(fd)
        return argv[argv.index(os.fsencode(plain(program))):]

    def _has_password(self):
        return bool(self.get_option('password') or self._play_context.password)

    _logged_in = False

    def _log_in(self, argv, spec):
        """
        Have Ansible's plugin answer for the password. Afterwards ssh needs none, if it keeps a
        connection.
        """
        if not self._persistence_controls(argv)[0]:
            raise FallBack('a password is needed for each connection, as ssh_args has no ControlPersist',
                           usual=False)
        if not self._logged_in and not self._ask('is_connected', spec)[1]:
            # Ansible's own method, not ours: that would come back here.
            super(Mixin, self).exec_command('true', sudoable=False)
            self._logged_in = True

    def _run_sudoable(self, cmd):
        raise FallBack('it gives such a command a terminal')


class LocalMixin(Mixin):
    """
    For the controller's own machine. Commands and files are Ansible's plugin's: there is nothing to
    be saved.
    """

    def _target(self):
        return 'local',

    def exec_command(self, cmd, in_data=None, sudoable=True):
        if not self._connected:
            self._connect()
        return super(LocalMixin, self).exec_command(cmd, in_data=in_data, sudoable=sudoable)

    def _run_sudoable(self, cmd):
        raise FallBack('a command here costs little')

    def _run_fragment(self, cmd, text):
        operation = self._notes.meanings.get(text)
        found = operation and mitogen.ansible.fragments.perform(plain(operation))
        if not found:
            raise FallBack('a command here costs little')
        return found[0], found[1].encode('utf-8', 'surrogateescape'), b''

    def _folder(self):
        return plain(os.fsdecode(self.cwd or ''))


def controller_pid():
    """
    Return the process that forks workers: our parent, if we are one.
    """
    return os.getpid() if multiprocessing.parent_process() is None else os.getppid()


def split(cmd):
    """
    Return the words of a shell's command, or None if they are not words.
    """
    try:
        return shlex.split(cmd)
    except ValueError:
        return None


def assignments(words):
    """
    Return ({variable: value}, the words after the assignments).
    """
    found, words = {}, list(words)
    while words:
        match = ASSIGNMENT.match(words[0])
        if not match:
            break
        found[match.group(1)] = match.group(2)
        del words[0]
    return found, words
