# SPDX-License-Identifier: BSD-3-Clause
"""
Becoming another user: any plugin's own command line, around the interpreter that is to be a zygote.
"""

from __future__ import absolute_import

import copy
import hashlib
import shlex

from mitogen.ansible.values import plain


class Become(object):
    """
    Notes about a become plugin while a task makes its command.

    :param plugin: of Ansible's. Its method is wrapped.
    """

    def __init__(self, plugin):
        self.plugin = plugin
        #: The last command as it was given, the command made of it, and their shell.
        self.inner = self.outer = self.shell = None
        method = plugin.build_become_command

        def wrapped(cmd, shell):
            made = method(cmd, shell)
            self.inner, self.outer, self.shell = cmd, made, shell
            return made

        plugin.build_become_command = wrapped

    def unwrap(self, text):
        """
        Return the command that the other user has to run, if `text` is the last one that was made,
        or None.
        """
        if self.outer is not None and text == self.outer and self.inner != self.outer:
            return self.inner
        return None

    def key(self):
        """
        Return a value that tells this user, and the way to become it, from others. It does not show
        the password.
        """
        options = self.plugin.get_options()
        text = repr([self.plugin._load_name] + sorted((name, str(value)) for name, value in options.items()))
        return hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()

    def start(self, argv, executable):
        """
        Return (command line that becomes that user and runs `argv`, whether it needs a terminal),
        and a `Prompter` for it.
        """
        # Each command line has a prompt of its own. That of the task's may still be needed.
        plugin = copy.copy(self.plugin)
        plugin.__dict__.pop('build_become_command', None)
        text = plain(plugin.build_become_command(' '.join(map(shlex.quote, argv)), self.shell))
        return ([executable, '-c', text], bool(plugin.require_tty)), Prompter(plugin)


class Prompter(object):
    """
    Answers for a plugin while its program starts.
    """
    answered = False

    def __init__(self, plugin):
        self.plugin = plugin

    def look(self, output):
        """
        Return the text to type, empty for nothing yet, or None if the attempt has failed.
        """
        plugin = self.plugin
        if plugin.check_incorrect_password(output) or plugin.check_missing_password(output):
            return None
        if plugin.expect_prompt() and plugin.check_password_prompt(output):
            if self.answered:
                return b''
            self.answered = True
            return plain(plugin.get_option('become_pass') or '').encode('utf-8', 'surrogateescape') + b'\n'
        return b''

    def explain(self, output):
        """
        Return Ansible's message for a program that ended with this output.
        """
        for check, word in (self.plugin.check_incorrect_password, 'Incorrect'), (
                self.plugin.check_missing_password, 'Missing'):
            if check(output):
                return '%s %s password' % (word, self.plugin.name)
        return output.decode('utf-8', 'replace').strip() or '%s failed' % (self.plugin.name,)
