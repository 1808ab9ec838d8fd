"""
The layers of the engine and of the package: includes and imports run downwards only.
"""

import os
import subprocess
import sys

import pytest

import places

TOOL = os.path.join(places.ROOT, 'tools', 'check_layers.py')

pytestmark = [pytest.mark.once, pytest.mark.skipif(not os.path.exists(TOOL), reason='needs the source tree')]


def test_nothing_looks_up():
    proc = subprocess.run([sys.executable, TOOL], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert proc.returncode == 0, proc.stdout
