# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `sudo`: a child of another user, by either kind of sudo.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import getopt
import re

import mitogen.core
import mitogen.parent

from mitogen.core import b


password_required_msg = 'sudo password is required'
password_incorrect_msg = 'sudo password is incorrect'

#: The prompt that sudo is told to use, so that no translation gets in the way.
#: Each connection makes its own of it, see :func:`_make_prompt`: this one is
#: known to everybody, and is not answered.
PASSWORD_PROMPT = 'mitogen-sudo-prompt:'


def _compile_prompt(prompt):
    """
    Return an expression that finds a prompt at the end of the data.

    The old sudo prints the prompt as it is. The one in Rust puts it in
    brackets, and goes on with its own, maybe translated, word. Either may then
    show an asterisk for each letter that is typed.
    """
    return re.compile(b(re.escape(prompt) + r'(?:\] [^*\n]{1,50})?\Z'))


PASSWORD_PROMPT_RE = _compile_prompt(PASSWORD_PROMPT)


def _make_prompt():
    """
    Return a prompt that nobody can foresee, so that a text which is made to
    look like one is not answered with a password.
    """
    return '%s-%s:' % (PASSWORD_PROMPT.rstrip(':'),
                       mitogen.parent._make_nonce())


class PasswordError(mitogen.parent.ConnectError):
    """
    sudo wants a password, and was given none or a wrong one.
    """
    pass


class _Flags(object):
    """
    The flags in a list of arguments of sudo; None for one that is not there.
    """
    username = None
    preserve_env = None
    set_home = None
    login = None
    selinux_role = None
    selinux_type = None


#: (letter, word, attribute or None if it is of no use here, takes a value)
_KNOWN_FLAGS = [
    ('E', 'preserve-env', 'preserve_env', False),
    ('H', 'set-home', 'set_home', False),
    ('i', 'login', 'login', False),
    ('r', 'role', 'selinux_role', True),
    ('t', 'type', 'selinux_type', True),
    ('u', 'user', 'username', True),
    ('S', 'stdin', None, False),
    ('n', 'non-interactive', None, False),
    ('h', 'help', 'help', False),
]


def parse_sudo_flags(args):
    """
    Parse arguments that a person would give to sudo.

    :param list args: such as ``['-H', '--user=bob']``.
    :returns: object with the attributes `username`, `preserve_env`,
        `set_home`, `login`, `selinux_role` and `selinux_type`, each None
        unless mentioned.
    :raises mitogen.core.StreamError: a mistake, or a flag that is not known.
    """
    letters = ''.join([flag[0] + ':' * flag[3] for flag in _KNOWN_FLAGS])
    words = [flag[1] + '=' * flag[3] for flag in _KNOWN_FLAGS]
    args = [mitogen.parent._native_str(arg) for arg in args]
    try:
        pairs, rest = getopt.getopt(args, letters, words)
    except getopt.GetoptError as e:
        name = '-' * (1 + (len(e.opt) > 1)) + e.opt
        text = e.msg
        if not any(e.opt in flag[:2] for flag in _KNOWN_FLAGS):
            text = 'no such option: ' + name
        raise mitogen.core.StreamError('sudo: ' + text)
    if rest:
        raise mitogen.core.StreamError(
            'sudo: only flags can be given, not: ' + ' '.join(rest))

    found = _Flags()
    for name, value in pairs:
        for letter, word, attribute, takes_value in _KNOWN_FLAGS:
            if name in ('-' + letter, '--' + word) and attribute:
                setattr(found, attribute, value if takes_value else True)
    if hasattr(found, 'help'):
        raise mitogen.core.StreamError(
            'sudo: there is no help here; these are the flags: ' +
            ', '.join(['-%s/--%s' % flag[:2] for flag in _KNOWN_FLAGS]))
    return found


class Options(mitogen.parent.Options):
    """
    Options of the method. Those that are None are taken from `sudo_args`.

    :param username: whom to become; root by default.
    :param sudo_path: the program.
    :param password: text to answer the prompt with.
    :param bool preserve_env: keep the environment.
    :param bool set_home: set HOME to the other user's.
    :param list sudo_args: flags as typed, see :func:`parse_sudo_flags`.
    :param bool login: run a login shell.
    :param selinux_role: role of the child's security context.
    :param selinux_type: type of the same.
    :raises mitogen.core.StreamError: bad `sudo_args`.
    """
    sudo_path = 'sudo'
    password = None

    #: Name -> value for those that `sudo_args` may have, too.
    _defaults = {
        'username': 'root', 'preserve_env': False, 'set_home': False,
        'login': False, 'selinux_role': None, 'selinux_type': None,
    }

    def __init__(self, username=None, sudo_path=None, password=None,
                 preserve_env=None, set_home=None, sudo_args=None, login=None,
                 selinux_role=None, selinux_type=None, **options):
        super(Options, self).__init__(**options)
        given = {
            'selinux_role': selinux_role, 'selinux_type': selinux_type,
            'login': login, 'set_home': set_home,
            'preserve_env': preserve_env, 'username': username,
        }
        flags = parse_sudo_flags(sudo_args or ())
        for name, default in self._defaults.items():
            for value in given[name], getattr(flags, name), default:
                if value is not None:
                    break
            setattr(self, name, value)
        if sudo_path is not None:
            self.sudo_path = sudo_path
        if password:
            self.password = mitogen.parent.make_secret(password)
        self._refuse_dash('username', 'selinux_role', 'selinux_type')


class SetupProtocol(mitogen.parent.PasswordMixin,
                    mitogen.parent.RegexProtocol):
    """
    Answers sudo on the terminal that is its stderr.
    """
    password_error = PasswordError
    required_msg, incorrect_msg = password_required_msg, password_incorrect_msg

    # If sudo was told to ask only once, it prints this and ends.
    PATTERNS = [(re.compile(mitogen.core.b('incorrect password attempt')),
                 mitogen.parent.PasswordMixin.on_password_rejected)]

    def _watch_for(self, prompt):
        """Answer this prompt, and no other."""
        self.PARTIAL_PATTERNS = [
            (_compile_prompt(prompt),
             mitogen.parent.PasswordMixin.on_password_prompt),
        ]


class Connection(mitogen.parent.Connection):
    """
    sudo asks on the terminal; the child's data go past it.
    """
    child_is_immediate_subprocess = False
    create_child_args = {'escalates_privilege': True}
    create_child = staticmethod(mitogen.parent.hybrid_tty_create_child)
    options_class, diag_protocol_class = Options, SetupProtocol

    def __init__(self, options, router):
        super(Connection, self).__init__(options, router)
        self._prompt = _make_prompt()

    def stderr_stream_factory(self):
        stream = super(Connection, self).stderr_stream_factory()
        stream.protocol._watch_for(self._prompt)
        return stream

    def _get_name(self):
        return u'sudo.' + mitogen.core.to_text(self.options.username)

    def _get_python_command(self):
        """
        Return the base command without a `source FILE &&`, which needs a
        shell. There is none here.
        """
        boot = super(Connection, self).get_boot_command()
        if 'source' in boot:
            start = end = boot.index('source')
            while end < len(boot) and not boot[end].endswith('python'):
                end += 1
            del boot[start:end]
        return boot

    def get_boot_command(self):
        options = self.options
        # The long names are younger than some sudo.
        command = [options.sudo_path, '-p', self._prompt,
                   '-u', options.username]
        for letter, wanted in (('-E', options.preserve_env),
                               ('-H', options.set_home),
                               ('-i', options.login)):
            if wanted:
                command.append(letter)
        for letter, value in (('-r', options.selinux_role),
                              ('-t', options.selinux_type)):
            if value:
                command += [letter, value]
        return command + ['--'] + self._get_python_command()
