# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `ssh`: a child on another machine, by the OpenSSH client.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import logging
import re

import mitogen.core
import mitogen.parent

from mitogen.core import b


LOG = logging.getLogger(__name__)

#: There is no password to tell right from wrong, or ssh did not ask for it.
auth_incorrect_msg = 'SSH authentication is incorrect'

hostkey_failed_msg = (
    'Host keys are checked, and ssh says that the key of this host is unknown '
    'or is not the one that it knows.'
)
hostkey_config_msg = (
    'ssh asks what to do with an unknown host key although check_host_keys '
    'does not let it ask; is there an option in ssh_args that contradicts?'
)

password_required_msg = 'SSH password was requested, but none specified'
password_incorrect_msg = 'SSH password is incorrect'

# Lines of the client, which ends them with a carriage return, too.
DEBUG_PATTERN = re.compile(b('^debug[123]:'))
HOSTKEY_FAIL_PATTERN = re.compile(b(r'host key verification failed\.'), re.I)

#: Only at the start of a line: a login shell that cannot enter
#: its home says "permission denied", too.
PERMDENIED_PATTERN = re.compile(b(r'^(?:\S+@\S+: )?permission denied'), re.I)

# Prompts.
PASSWORD_PROMPT_PATTERN = re.compile(b('password'), re.I)

#: Ends the data, since the next prompt follows on the same line.
HOSTKEY_REQ_PATTERN = re.compile(
    b(r'continue connecting \(yes/no(?:/\[fingerprint\])?\)\?\s*\Z'), re.I)

#: Whose password a prompt is about, as the client writes it.
_WHOSE = re.compile(b(r"([^\s(]+@[^\s)']+)(?:\)|'s )"))

#: The fixed beginning of some lines, up to their text.
_ADDRESS = re.compile(b(r'^\S+@\S*(?:: ?|\Z)'))
_DENIED = b('permission denied')


class HostKeyError(mitogen.parent.ConnectError):
    """
    The host's key is not the expected one, or is unknown.
    """
    pass


class PasswordError(mitogen.parent.ConnectError):
    """
    The host does not let us in.
    """
    pass


def _is_prompt(line):
    """
    Return False for the beginning of a line that may become a refusal or a
    debug message. Those may name the method "password", or a host of that
    name.
    """
    start = _ADDRESS.sub(b(''), line).lower()[:len(_DENIED)]
    return not (_DENIED.startswith(start) or DEBUG_PATTERN.search(line))


def _quote(word):
    """
    Return `word` so that a remote shell takes it for one word.
    """
    if re.match(r'[A-Za-z0-9%+,./:=@_-]+\Z', word):
        return word
    return "'%s'" % (word.replace("'", "'\\''"),)


class SetupProtocol(mitogen.parent.PasswordMixin,
                    mitogen.parent.RegexProtocol):
    """
    Reads what the client says on its stderr or terminal, and answers it.
    """
    password_error = PasswordError
    required_msg, incorrect_msg = password_required_msg, password_incorrect_msg

    _confirmed = False

    #: For whom the password was typed; None where the prompt did not say.
    _typed = ()

    def on_line_received(self, line):
        self._confirmed = False
        return super(SetupProtocol, self).on_line_received(line)

    def _on_debug(self, line, match):
        LOG.debug(u'%s: %s', self.stream.name,
                  mitogen.parent._printable_line(self._shown(line)))

    def _on_hostkey_failed(self, line, match):
        self._fail_hostkey(hostkey_failed_msg)

    def _fail_hostkey(self, text):
        conn = self.stream.conn
        conn._fail_connection(HostKeyError(text))

    def _on_denied(self, line, match):
        text = auth_incorrect_msg
        has_password = self.stream.conn.options.password is not None
        if has_password and self.password_sent:
            text = password_incorrect_msg
        elif not has_password and PASSWORD_PROMPT_PATTERN.search(
                line, match.end()):
            text = password_required_msg
        self.fail_password(text)

    def _on_hostkey_question(self, line, match):
        if self.stream.conn.options.check_host_keys != 'accept':
            self._fail_hostkey(hostkey_config_msg)
        elif not self._confirmed:
            self._confirmed = True
            self.type_line(u'yes')
        # The client does not begin a new line for the password prompt.
        return self.NOT_ANSWERED

    def on_password_prompt(self, line, match):
        if not _is_prompt(line):
            return self.NOT_ANSWERED
        found = _WHOSE.search(line)
        whose = found and found.group(1)
        if self.stream.conn.options.password is None:
            self.fail_password(password_required_msg)
        elif self.password_sent and (whose is None or None in self._typed or
                                     whose in self._typed):
            self.fail_password(password_incorrect_msg)
        else:
            # Again for another host: a jump host may have asked before.
            self._typed += (whose,)
            self.type_password()

    PATTERNS = [
        (DEBUG_PATTERN, _on_debug),
        (HOSTKEY_FAIL_PATTERN, _on_hostkey_failed),
        (PERMDENIED_PATTERN, _on_denied),
    ]
    PARTIAL_PATTERNS = [
        (HOSTKEY_REQ_PATTERN, _on_hostkey_question),
        (PASSWORD_PROMPT_PATTERN, on_password_prompt),
    ]


class Options(mitogen.parent.Options):
    """
    Options of the method, most of which are options of the client.

    :param hostname: name, address, or alias in the client's configuration.
    :param username: user there; the client decides if None.
    :param ssh_path: the client.
    :param int port: TCP port; the client decides if None.
    :param check_host_keys: ``enforce``: the key must be known; ``accept``: an
        unknown key is taken and remembered; ``ignore``: any key will do.
    :param password: text to answer each password prompt with.
    :param identity_file: private key.
    :param bool compression: compress what is sent.
    :param list ssh_args: more arguments for the client.
    :param bool keepalive_enabled: find out when the connection is dead: after
        `keepalive_count` questions, `keepalive_interval` seconds apart.
    :param bool identities_only: if a key or a password is given, do not offer
        the keys of an agent.
    :param int ssh_debug_level: 0 to 3; let the client log what it does.
    :raises ValueError: no such way to check host keys.
    """
    python_path = 'python'
    ssh_path = 'ssh'
    ssh_debug_level = 0

    check_host_keys_msg = (
        "check_host_keys must be one of 'accept', 'enforce' and 'ignore'"
    )

    def __init__(self, hostname,
                 # The address, and the user.
                 username=None, ssh_path=None, port=None,
                 check_host_keys='enforce', password=None,
                 identity_file=None,
                 # How.
                 compression=True, ssh_args=None, keepalive_enabled=True,
                 keepalive_count=3, keepalive_interval=15,
                 # The keys that are offered, and the level of its log.
                 identities_only=True, ssh_debug_level=None, **options):
        if check_host_keys not in ('accept', 'enforce', 'ignore'):
            raise ValueError(self.check_host_keys_msg)
        super(Options, self).__init__(**options)

        self.hostname, self.port = hostname, port
        self.username = username
        self.password = mitogen.parent.make_secret(password)
        self.identity_file = identity_file
        self.identities_only = identities_only
        self.check_host_keys = check_host_keys

        self.ssh_path = ssh_path or self.ssh_path
        self.ssh_args = list(ssh_args or ())
        self.ssh_debug_level = ssh_debug_level or self.ssh_debug_level
        self.compression = compression
        self.keepalive_enabled = keepalive_enabled
        self.keepalive_interval = keepalive_interval
        self.keepalive_count = keepalive_count
        self._refuse_dash('hostname', 'username')


class Connection(mitogen.parent.Connection):
    """
    A terminal is made only if the client will ask something, since terminals
    are few. Then the client asks there, and keeps it as its stderr; otherwise
    its stderr is a pipe.
    """
    _is_far = True
    options_class = Options
    diag_protocol_class = SetupProtocol
    child_is_immediate_subprocess = False

    #: Words of the remote command that are left to the remote shell.
    SHLEX_IGNORE = ['&&']

    def __init__(self, options, router):
        super(Connection, self).__init__(options, router)
        if self._requires_pty():
            self.create_child = mitogen.parent.hybrid_tty_create_child
        else:
            self.create_child_args = {'stderr_pipe': True}

    def _requires_pty(self):
        """Return whether the client may have a question that we can answer."""
        options = self.options
        return options.password is not None or \
            options.check_host_keys == 'accept'

    def _get_name(self):
        name = u'ssh.' + mitogen.core.to_text(self.options.hostname)
        # The value may be a number, or text from a configuration.
        port = mitogen.core.to_text(self.options.port or 22)
        return name if port == u'22' else u'%s:%s' % (name, port)

    def _get_settings(self):
        """
        Yield the values of the client's ``-o`` that follow the key.
        """
        options = self.options
        if options.compression:
            yield 'Compression yes'
        if options.keepalive_enabled:
            yield 'ServerAliveInterval %s' % (options.keepalive_interval,)
            yield 'ServerAliveCountMax %s' % (options.keepalive_count,)
        if not self._requires_pty():
            # Nobody is there to ask.
            yield 'BatchMode yes'
        check = {'enforce': 'yes', 'accept': 'ask', 'ignore': 'no'}
        yield 'StrictHostKeyChecking ' + check[options.check_host_keys]
        if options.check_host_keys == 'ignore':
            # A key that differs from a known one would end it all the same.
            yield 'UserKnownHostsFile /dev/null'
            yield 'GlobalKnownHostsFile /dev/null'

    def _get_client_command(self):
        options = self.options
        command = [options.ssh_path]
        if options.ssh_debug_level > 0:
            command.append('-' + 'v' * min(3, options.ssh_debug_level))
        else:
            # A banner may contain something that looks like a prompt.
            command += ['-o', 'LogLevel ERROR']
        if options.username:
            command += ['-l', options.username]
        if options.port is not None:
            command += ['-p', str(options.port)]
        has_own = options.identity_file or options.password
        if has_own and options.identities_only:
            command += ['-o', 'IdentitiesOnly yes']
        if options.identity_file:
            command += ['-i', options.identity_file]
        for setting in self._get_settings():
            command += ['-o', setting]
        return command + options.ssh_args + ['--', options.hostname]

    def get_boot_command(self):
        boot = super(Connection, self).get_boot_command()
        return self._get_client_command() + [
            word if word in self.SHLEX_IGNORE else _quote(word)
            for word in boot
        ]
