# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `su`: a child of another user, by the program su.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import re

import mitogen.core
import mitogen.parent


password_required_msg = 'su password is required'
password_incorrect_msg = 'su password is incorrect'


class PasswordError(mitogen.parent.ConnectError):
    """
    su wants a password, and was given none or a wrong one.
    """
    pass


def compile_literals(texts):
    """
    Return a bytes expression that finds any of some texts, in letters of
    either case.

    :param texts: list of text or UTF-8 bytes.
    """
    words = [re.escape(mitogen.core.to_text(text).encode('utf-8'))
             for text in texts]
    return re.compile(mitogen.core.b('|').join(words), re.I)


class Options(mitogen.parent.Options):
    """
    Options of the method.

    :param username: whom to become; root by default.
    :param password: text to answer the prompt with.
    :param su_path: the program.
    :param password_prompt: what it asks with, in letters of either case.
    :param list incorrect_prompts: texts, each of which in a line means that
        the password was wrong.
    """
    username = u'root'
    su_path = 'su'
    password_prompt = u'password:'

    incorrect_prompts = (
        # Linux
        u'su: authentication failure',
        # CentOS 6
        u'su: incorrect password',
        # The BSDs
        u'su: sorry',
        # AIX
        u'authentication is denied',
    )

    def __init__(self, username=None, password=None, su_path=None,
                 password_prompt=None, incorrect_prompts=None, **options):
        super(Options, self).__init__(**options)
        self.password = mitogen.parent.make_secret(password)
        for name, value in (('username', username), ('su_path', su_path),
                            ('password_prompt', password_prompt),
                            ('incorrect_prompts', incorrect_prompts)):
            if value is not None:
                setattr(self, name, value)
        self._refuse_dash('username')


class SetupBootstrapProtocol(mitogen.parent.PasswordMixin,
                             mitogen.parent.BootstrapProtocol):
    """
    Speaks with su until the password is right, and then with the first stage.
    Both use one terminal.
    """
    password_error = PasswordError
    required_msg, incorrect_msg = password_required_msg, password_incorrect_msg

    def watch_for(self, options):
        """Take the texts to look for from the options."""
        mixin = mitogen.parent.PasswordMixin
        if options.incorrect_prompts:
            rejected = compile_literals(options.incorrect_prompts)
            self.PATTERNS = self.PATTERNS + [
                (rejected, mixin.on_password_rejected),
            ]
        self.PARTIAL_PATTERNS = [
            (compile_literals([options.password_prompt]),
             mixin.on_password_prompt),
        ]


class Connection(mitogen.parent.Connection):
    """
    su reads the password from its stdin, and some su insist that this is a
    terminal.
    """
    create_child = staticmethod(mitogen.parent.tty_create_child)
    options_class, stream_protocol_class = Options, SetupBootstrapProtocol
    child_is_immediate_subprocess = False

    def _get_name(self):
        user = mitogen.core.to_text(self.options.username)
        return u'su.%s' % (user,)

    def stream_factory(self):
        stream = super(Connection, self).stream_factory()
        stream.protocol.watch_for(self.options)
        return stream

    def get_boot_command(self):
        boot = super(Connection, self).get_boot_command()
        return [self.options.su_path, self.options.username, '-c',
                mitogen.parent._shell_line(boot)]
