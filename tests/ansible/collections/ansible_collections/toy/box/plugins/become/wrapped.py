"""
Becomes another user by a command line that no plugin of Ansible's has.
"""

from ansible.plugins.become import BecomeBase

DOCUMENTATION = '''
name: wrapped
short_description: sudo around env
description: [sudo around env]
options:
  become_user:
    description: [user]
    default: root
    vars: [{name: ansible_become_user}]
    keyword: [{name: become_user}]
  become_pass:
    description: [password]
    vars: [{name: ansible_become_password}]
'''


class BecomeModule(BecomeBase):
    name = 'toy.box.wrapped'
    prompt = '[wrapped] '

    def build_become_command(self, cmd, shell):
        super().build_become_command(cmd, shell)
        if not cmd:
            return cmd
        return 'sudo -p "%s" -S -u %s env WRAPPED=yes %s' % (
            self.prompt, self.get_option('become_user'), self._build_success_command(cmd, shell))
