#!/usr/bin/python
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.embed import EmbedManager

script = EmbedManager.embed('ansible.module_utils._embed', 'dnf.py')


def main():
    module = AnsibleModule(argument_spec={})
    with script.path_context_manager as path:
        module.exit_json(changed=False, size=path.stat().st_size)


if __name__ == '__main__':
    main()
