#!/usr/bin/python
import os
import signal
import sys
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module


def main():
    module = AnsibleModule(argument_spec={'text': {'type': 'str', 'required': True}})
    if module.params['text'] == 'late':
        time.sleep(float(os.environ['LATE_SECONDS']))
    if module.params['text'] == 'killed':
        os.kill(os.getpid(), signal.SIGKILL)
    found = probe_interpreters_for_module([sys.executable], 'ansible.module_utils.basic')
    if not has_respawned():
        respawn_module(found)
    place = sys.modules['ansible.module_utils.basic'].__file__
    module.exit_json(changed=False, got=module.params['text'], found=found, from_archive='.zip' in place, is_there=(
        os.path.exists(place.partition('.zip')[0] + '.zip')))


if __name__ == '__main__':
    main()
