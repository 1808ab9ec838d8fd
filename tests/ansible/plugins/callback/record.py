"""
Writes what happened, one JSON object a line, to the file that RECORD_TO names: each result of each
task on each host, of the items of loops too, and the closing statistics.
"""

import json
import os
import sys

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = '''
    name: record
    type: aggregate
    short_description: writes down what happened
    description: For tests, which compare it.
'''


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = 'aggregate'
    CALLBACK_NAME = 'record'

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.fp = open(os.environ['RECORD_TO'], 'a')

    def write(self, **record):
        self.fp.write(json.dumps(record, default=str, sort_keys=True) + '\n')
        self.fp.flush()

    def write_result(self, event, result):
        # ansible-core 2.19 has public names for them.
        data, host, task = [
            getattr(result, name) if hasattr(type(result), name) or name in vars(result) else getattr(result, '_' + name)
            for name in ('result', 'host', 'task')
        ]
        self.write(event=event, host=host.get_name(), task=task.get_name(), action=task.action, result=data)

    def v2_runner_on_ok(self, result):
        self.write_result('ok', result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self.write_result('ignored' if ignore_errors else 'failed', result)

    def v2_runner_on_skipped(self, result):
        self.write_result('skipped', result)

    def v2_runner_on_unreachable(self, result):
        self.write_result('unreachable', result)

    def v2_runner_item_on_ok(self, result):
        self.write_result('item ok', result)

    def v2_runner_item_on_failed(self, result):
        self.write_result('item failed', result)

    def v2_runner_item_on_skipped(self, result):
        self.write_result('item skipped', result)

    def v2_playbook_on_stats(self, stats):
        core = sys.modules.get('mitogen.core')
        self.write(event='core', core=core and [getattr(core, 'CORE', None), core.__file__])
        self.write(event='stats', hosts=dict((host, stats.summarize(host)) for host in stats.processed))
