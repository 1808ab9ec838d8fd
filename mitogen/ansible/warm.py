# SPDX-License-Identifier: BSD-3-Clause
"""
The warm-up: has the controller load, once, what each of its workers would load after the fork.
"""

from __future__ import absolute_import

import gc
import multiprocessing
import os
import sys

import mitogen.ansible.client
import mitogen.ansible.closure
import mitogen.ansible.folder
import mitogen.ansible.waiting

_done = False


def warm():
    """
    Warm up, once in a process. An import that fails is left to the task that needs it.
    """
    global _done
    if _done:
        return
    _done = True
    for step in STEPS:
        try:
            step()
        except Exception:
            # Another version of Ansible has it elsewhere, or not at all.
            pass


def start_daemon():
    """
    Let the daemon start while the controller reads plays. A worker starts it when it is needed.
    """
    is_worker = getattr(multiprocessing, 'parent_process', lambda: True)() is not None
    if is_worker or 'ansible.executor.playbook_executor' not in sys.modules:
        return
    from ansible import constants
    from mitogen.ansible.values import plain
    mitogen.ansible.client.start(plain(constants.DEFAULT_LOCAL_TMP), os.getpid(), mitogen.ansible.folder.home())


def load_actions():
    from ansible.plugins.loader import action_loader
    for name in 'ansible.legacy.normal', 'ansible.legacy.command', 'copy', 'template', 'gather_facts':
        action_loader.get(name, class_only=True)


def find_modules():
    """
    Look through the folders of modules.
    """
    from ansible.plugins.loader import module_loader
    for name in 'ansible.legacy.command', 'ansible.legacy.setup':
        module_loader.find_plugin(name, '.py')


def wait_for_results():
    from ansible.plugins import strategy
    mitogen.ansible.waiting.install(strategy)


def take_names():
    import mitogen.ansible.names
    mitogen.ansible.names.say_unknown()
    mitogen.ansible.names.install()


def remember_closures():
    from ansible.executor import module_common
    mitogen.ansible.closure.install(module_common)


def load_shell():
    from ansible.plugins.loader import get_shell_plugin
    get_shell_plugin(shell_type='sh', executable='/bin/sh')


def load_encoders():
    from ansible.module_utils.common.json import Direction, get_module_decoder, get_module_encoder
    get_module_encoder('legacy', Direction.CONTROLLER_TO_MODULE)
    get_module_decoder('legacy', Direction.MODULE_TO_CONTROLLER)


def load_results():
    from ansible._internal import _task
    _task.UnifiedTaskResult.from_module_result_dict({'changed': False})
    _task.UnifiedTaskResult.from_action_result_dict({'changed': False})


def freeze():
    """
    Keep the garbage collector of workers from writing to shared memory.
    """
    gc.freeze()


STEPS = [
    start_daemon, take_names, remember_closures, wait_for_results, find_modules, load_actions, load_shell, load_encoders,
    load_results, freeze,
]
