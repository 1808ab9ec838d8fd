"""
README.rst: its programs run, its figures are those of the benchmarks, and what it names is there.
"""

import os
import re
import subprocess
import sys

import pytest

import doc_blocks
import places

ROOT = places.ROOT
README = os.path.join(ROOT, 'README.rst')

pytestmark = pytest.mark.skipif(
    not os.path.exists(README) or not os.path.isdir(os.path.join(ROOT, 'tools')), reason='needs the source tree')


def test_its_program_prints_what_it_says(tmp_path):
    assert doc_blocks.follow(README, tmp_path) == 2


def test_every_block_is_run_by_a_test():
    for block in doc_blocks.blocks(README):
        assert block.elsewhere or block.file or block.language == 'console', block.line
    assert '::\n\n' not in re.sub(r'\.\. [a-z-]+:: .*', '', doc_blocks.read(README)), 'a block that no test sees'


def test_its_make_targets_are_there():
    makefile = doc_blocks.read(os.path.join(ROOT, 'Makefile'))
    for name in set(re.findall(r'\bmake ([a-z-]+)', doc_blocks.read(README))) - {'and'}:
        if '``make ' + name in doc_blocks.read(README) or '$ make ' + name in doc_blocks.read(README):
            assert re.search(r'^%s:' % re.escape(name), makefile, re.M), name


def test_its_figures_are_those_of_the_benchmarks():
    proc = subprocess.run([sys.executable, os.path.join(ROOT, 'tools', 'readme_table.py'), '--check'],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=110)
    assert proc.returncode == 0, proc.stdout


def test_the_files_that_it_names_are_there():
    names = re.findall(r'``([\w./-]+)``', doc_blocks.read(README))
    names += re.findall(r'image:: (\S+)', doc_blocks.read(README))
    checked = 0
    for name in names:
        if '/' in name:
            assert os.path.exists(os.path.join(ROOT, name)), name
            checked += 1
    assert checked > 8


def test_it_is_what_an_index_can_show():
    docutils = pytest.importorskip('docutils.core')
    complaints = []

    class Stream(object):
        def write(self, text):
            complaints.append(text)

    docutils.publish_doctree(doc_blocks.read(README), settings_overrides={
        'warning_stream': Stream(), 'report_level': 2, 'file_insertion_enabled': False, 'raw_enabled': False})
    assert complaints == []
