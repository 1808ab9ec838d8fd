"""
A device whose command line is a shell.
"""

import re

from ansible_collections.ansible.netcommon.plugins.plugin_utils.terminal_base import TerminalBase


class TerminalModule(TerminalBase):
    terminal_stdout_re = [re.compile(br'[$#] $')]
    terminal_stderr_re = [re.compile(br'not found')]
