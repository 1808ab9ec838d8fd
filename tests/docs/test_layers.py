"""
The layers of the engine and of the package: includes and imports run downwards only.
"""

import os
import shutil
import subprocess
import sys

import pytest

import places

TOOL = os.path.join(places.ROOT, 'tools', 'check_layers.py')

pytestmark = [pytest.mark.once, pytest.mark.skipif(not os.path.exists(TOOL), reason='needs the source tree')]


def test_nothing_looks_up():
    proc = subprocess.run([sys.executable, TOOL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110)
    assert proc.returncode == 0, proc.stdout


#: Path -> a line at its head that the checker is to find.
UPWARDS = {
    'mitogen/_core/message.py': 'from mitogen.core import Router  # house',
    'mitogen/_parent/errors.py': 'from mitogen.parent import Router  # house',
    'mitogen/_core/importer.py': 'import mitogen.master  # house',
    'mitogen/_core/child.py': 'import mitogen.ansible.hub  # house',
    'mitogen/_native/latch.py': 'WAITING = core.Receiver',
    'mitogen/select.py': 'import mitogen.parent',
    'mitogen/ssh.py': 'from mitogen._tree.tree import Tree',
    'mitogen/su.py': 'from .master import Router',
    'mitogen/sudo.py': 'from mitogen import nowhere',
    'mitogen/_tree/errors.py': 'from mitogen._tree import host',
    'mitogen/_cli/display.py': 'import mitogen._cli.run',
    'mitogen/ansible/values.py': 'import mitogen.ansible.connection',
    'mitogen/ansible/unplaced.py': '',
    '_mitogen_core/engine/base/buf.h': '#include "loop/loop.h"',
    '_mitogen_core/engine/sync/latch.c': '#include "loop/lead.h"',
    '_mitogen_core/engine/net/stream.c': '#include "net/router.h"',
    '_mitogen_core/engine/loop/lead.c': '#include <ev.h>',
    '_mitogen_core/engine/wire/outq.h': '#include <Python.h>',
    '_mitogen_core/gil.h': '#include "router_object.h"',
    '_mitogen_core/link_object.c': 'static int reads(const mg_stream *s) { return s->started; }',
    '_mitogen_core/unplaced.c': '',
}


def test_each_import_of_what_is_above_is_found(tmp_path):
    # A copy of what the checker reads.
    for name in ('mitogen', '_mitogen_core', 'tools'):
        shutil.copytree(os.path.join(places.ROOT, name), str(tmp_path / name),
                        ignore=shutil.ignore_patterns('build', '__pycache__', 'corpus'))
    for path, line in UPWARDS.items():
        old = (tmp_path / path).read_text() if (tmp_path / path).exists() else ''
        (tmp_path / path).write_text(line + '\n' + old)
    proc = subprocess.run([sys.executable, str(tmp_path / 'tools' / 'check_layers.py')], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=110)
    assert proc.returncode == 1
    found = proc.stdout.splitlines()
    paths = [path.replace('_mitogen_core/engine/', '').replace('_mitogen_core/', '') for path in UPWARDS]
    assert [[line.startswith(path) for line in found].count(True) for path in paths] == [1] * len(paths), found
    assert len(found) == len(paths), found
