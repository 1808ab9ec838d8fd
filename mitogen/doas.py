# SPDX-License-Identifier: BSD-3-Clause
"""
Connection method `doas`: a child of another user, by OpenBSD's doas or a port
of it.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.core
import mitogen.parent

from mitogen.su import compile_literals


password_required_msg = 'doas password is required'
password_incorrect_msg = 'doas password is incorrect'


class PasswordError(mitogen.parent.ConnectError):
    """
    doas wants a password, and was given none or a wrong one.
    """
    pass


class Options(mitogen.parent.Options):
    """
    Options of the method.

    :param username: whom to become; root by default.
    :param password: text to answer the prompt with.
    :param doas_path: the program.
    :param password_prompt: what it asks with, in letters of either case.
    :param list incorrect_prompts: texts, each of which in a line means that
        the password was wrong, if one was given.
    """
    username = u'root'
    doas_path = 'doas'
    password_prompt = u'Password:'

    #: Of the ports, and of OpenBSD's own.
    incorrect_prompts = (
        u'doas: authentication failed',
        u'doas: Authorization failed',
    )

    def __init__(self, username=None, password=None, doas_path=None,
                 password_prompt=None, incorrect_prompts=None, **options):
        super(Options, self).__init__(**options)
        given = {
            'username': username, 'doas_path': doas_path,
            'password_prompt': password_prompt,
            'incorrect_prompts': incorrect_prompts,
        }
        for name in given:
            if given[name] is not None:
                setattr(self, name, given[name])
        self.password = mitogen.parent.make_secret(password)
        self._refuse_dash('username')


class BootstrapProtocol(mitogen.parent.PasswordMixin,
                        mitogen.parent.RegexProtocol):
    """
    Answers doas on the terminal that is its stderr.

    :param Options options: the texts to look for.
    """
    password_error = PasswordError
    required_msg, incorrect_msg = password_required_msg, password_incorrect_msg

    def __init__(self, options):
        super(BootstrapProtocol, self).__init__()
        if options.incorrect_prompts:
            rejected = compile_literals(options.incorrect_prompts)
            self.PATTERNS = [(rejected, BootstrapProtocol.on_password_rejected)]
        asked = compile_literals([options.password_prompt])
        self.PARTIAL_PATTERNS = [(asked, BootstrapProtocol.on_password_prompt)]

    def on_password_rejected(self, line, match):
        # doas says the same to a user whom it allows nothing.
        if self.password_sent:
            self.fail_password(self.incorrect_msg)


class Connection(mitogen.parent.Connection):
    """
    doas asks on the terminal; the child's data go past it.
    """
    child_is_immediate_subprocess = False
    create_child_args = {'escalates_privilege': True}
    create_child = staticmethod(mitogen.parent.hybrid_tty_create_child)
    options_class, diag_protocol_class = Options, BootstrapProtocol

    def _get_name(self):
        return u'doas.' + mitogen.core.to_text(self.options.username)

    def stderr_stream_factory(self):
        return self.diag_protocol_class.build_stream(self.options)

    def get_boot_command(self):
        command = [self.options.doas_path, '-u', self.options.username, '--']
        return command + super(Connection, self).get_boot_command()
