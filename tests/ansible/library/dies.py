#!/usr/bin/python
import os
import signal
import sys
import threading
import time

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={'way': {'type': 'str', 'required': True}})
    way = module.params['way']
    if way == 'exit':
        os._exit(7)
    if way == 'kill':
        os.kill(os.getpid(), signal.SIGKILL)
    if way == 'thread':
        threading.Thread(target=time.sleep, args=(0.5,)).start()
    if way == 'mess':
        os.chdir('/')
        os.umask(0o777)
        os.environ['MESS'] = 'mess'
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if way == 'noise':
        print('words before the answer')
        sys.stdout.flush()
    if way == 'leak':
        AnsibleModule.leaked = True
    module.exit_json(
        changed=False, leaked=hasattr(AnsibleModule, 'leaked') and way != 'leak', zone=time.strftime('%Z', time.localtime(0)),
        path='/some/where' in sys.path, encoding=sys.stdout.encoding,
        files=sorted(map(int, os.listdir('/proc/self/fd')))[:3], argv=sys.argv[:1])


if __name__ == '__main__':
    main()
