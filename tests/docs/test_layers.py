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
    proc = subprocess.run([sys.executable, TOOL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert proc.returncode == 0, proc.stdout


def test_an_import_of_what_is_above_is_found(tmp_path):
    lines = {
        'mitogen/_core/message.py': 'from mitogen.core import Router  # house\n',
        'mitogen/_parent/errors.py': 'from mitogen.parent import Router  # house\n',
        'mitogen/_core/importer.py': 'import mitogen.master  # house\n',
        'mitogen/_native/latch.py': 'WAITING = core.Receiver\n',
        'mitogen/select.py': 'import mitogen.parent\n',
    }
    # A copy of what the checker reads.
    for name in ('mitogen', '_mitogen_core', 'tools'):
        shutil.copytree(os.path.join(places.ROOT, name), str(tmp_path / name),
                        ignore=shutil.ignore_patterns('build', '__pycache__', 'corpus'))
    for path, line in lines.items():
        (tmp_path / path).write_text(line + (tmp_path / path).read_text())
    proc = subprocess.run([sys.executable, str(tmp_path / 'tools' / 'check_layers.py')], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    assert proc.returncode == 1
    found = proc.stdout.splitlines()
    assert [[path in line for line in found].count(True) for path in lines] == [1] * len(lines), found
    assert len(found) == len(lines), found
