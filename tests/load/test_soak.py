"""
A few seconds of the long run, ``make soak``.
"""

import os
import subprocess
import sys

import places

SOAK = os.path.join(places.LOAD, 'soak.py')


def test_a_short_soak_has_no_findings():
    proc = subprocess.run(
        [sys.executable, SOAK, '--seconds', '3', '--branches', '1', '--workers', '3', '--pause', '0.3', '--seed', '4'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=110)
    assert proc.returncode == 0, proc.stdout
    assert proc.stdout.endswith('\n0 findings\n'), proc.stdout
