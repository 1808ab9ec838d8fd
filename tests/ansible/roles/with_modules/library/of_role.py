#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule


def main():
    # Found by who reads the text, not by who runs it.
    from ansible.module_utils.role_helper import shout
    module = AnsibleModule(argument_spec={'text': {'type': 'str', 'required': True}})
    module.exit_json(changed=False, got=shout(module.params['text']))


if __name__ == '__main__':
    main()
