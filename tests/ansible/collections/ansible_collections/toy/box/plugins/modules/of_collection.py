#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.toy.box.plugins.module_utils.helper import backwards


def main():
    module = AnsibleModule(argument_spec={'text': {'type': 'str', 'required': True}})
    module.exit_json(changed=False, got=backwards(module.params['text']), name=__name__)


if __name__ == '__main__':
    main()
