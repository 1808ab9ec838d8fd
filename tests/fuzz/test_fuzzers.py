"""
Short, repeatable runs of the fuzzers; the inputs that once failed, or nearly, run again. The
engine's are replayed by its own tests, the codec's by test_codec.py.
"""

import os
import random
import subprocess
import sys
import zlib

import bootstrap_fuzz
import fuzz_corpus
import places
import pytest



@pytest.mark.parametrize('name', sorted(fuzz_corpus.files('bootstrap')))
def test_output_of_a_starting_child_is_read_as_its_lines_say(name):
    data = fuzz_corpus.files('bootstrap')[name]
    for seed in range(4):
        bootstrap_fuzz.try_one(data, random.Random(seed))


def test_output_that_coverage_chose():
    for data in fuzz_corpus.rows('bootstrap'):
        bootstrap_fuzz.try_one(data, random.Random(zlib.crc32(data)))


def test_made_up_output_of_a_starting_child():
    rng = random.Random(1)
    for _ in range(30):
        bootstrap_fuzz.try_one(bootstrap_fuzz.generate(rng), rng)


@pytest.mark.once
@pytest.mark.parametrize('seed', [1, 2, 3, 5, 3236995401])
def test_both_cores_do_the_same(seed):
    """
    Rows of operations on which they once disagreed.
    """
    proc = subprocess.run(
        [sys.executable, os.path.join(places.FUZZ, 'differential_fuzz.py'), '--seed', str(seed), '--steps', '100'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=100)
    assert (proc.returncode, proc.stdout) == (0, '100 operations in 1 rows, no difference\n')


@pytest.mark.seconds(300)
@pytest.mark.parametrize('seed', [1, 2])
def test_a_master_that_is_lied_to_does_what_it_did_before(seed):
    """
    Of the two trees, one has the liar below another child.
    """
    proc = subprocess.run(
        [sys.executable, os.path.join(places.FUZZ, 'master_fuzz.py'), '--core', os.environ['MITOGEN_CORE'],
         '--seed', str(seed), '--batches', '3'],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert (proc.returncode, proc.stdout) == (0, '3 batches in 1 rows, all held\n')


@pytest.mark.parametrize('seed', [5, 8])
def test_each_task_is_accounted_for(seed):
    """
    With the first one, a deadline of a task that was cancelled held the end of its tree up.
    """
    proc = subprocess.run(
        [sys.executable, os.path.join(places.FUZZ, 'task_fuzz.py'), '--seed', str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    assert proc.returncode == 0, proc.stdout
