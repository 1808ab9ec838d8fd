#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.a_helper import turned


def main():
    module = AnsibleModule(argument_spec={'text': {'type': 'str', 'required': True}}, supports_check_mode=True)
    module.exit_json(changed=False, turned=turned(module.params['text']), main=__name__)


if __name__ == '__main__':
    main()
