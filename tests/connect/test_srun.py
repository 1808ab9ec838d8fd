"""
Children in allocations of a real Slurm.
"""

import os
import re
import sys
import time

import pytest

import mitogen
import mitogen.command
import mitogen.core

import slurm
import testlib

#: The interpreter of the tests, which is on the node, too.
PYTHON = {'python_path': sys.executable}

#: Fixtures.
running_cluster, cluster = slurm.running_cluster, slurm.cluster


@pytest.fixture
def tree(cluster):
    with mitogen.Tree() as tree:
        yield tree


def test_a_child_in_a_new_allocation_that_ends_with_it(cluster, tree):
    host = tree.connect('local:/slurm:', **PYTHON)
    job = host.call(os.getenv, 'SLURM_JOB_ID')
    assert host.call(os.getenv, 'SLURMD_NODENAME') == slurm.NODE and cluster.jobs() == [job]
    assert host.name.endswith('.srun.new')
    # Neither a terminal nor a buffer for lines is on the way.
    data = b'\0\r\n\xff\x04\x03' * 10000
    assert host.call(bytes, mitogen.core.Blob(data)) == data
    below = tree.connect('local:', via=host)
    assert below.call(os.getppid) == host.call(os.getpid)
    assert below.call(os.getenv, 'SLURM_JOB_ID') == job
    host.close()
    cluster.wait_until_idle()


def test_children_in_an_allocation_that_is_there(cluster, tree, capfd):
    first = tree.connect('slurm:/' + slurm.NODE, **PYTHON)
    job = first.call(os.getenv, 'SLURM_JOB_ID')
    second = tree.connect('slurm:%s/%s' % (job, slurm.NODE), **PYTHON)
    third = tree.srun(jobid=int(job), **PYTHON)
    assert (second.name, third.name) == ('srun.%s/%s' % (job, slurm.NODE), 'srun.' + job)
    assert second.call(os.getenv, 'SLURM_JOB_ID') == third.call(os.getenv, 'SLURM_JOB_ID') == job
    assert len({host.call(os.getenv, 'SLURM_STEP_ID') for host in (first, second, third)}) == 3
    assert cluster.jobs() == [job]
    line = 'echo $SLURM_JOB_ID $SLURMD_NODENAME'
    status = mitogen.command.main(['run', '--python', sys.executable, 'slurm:%s/*' % (job,), '--', line])
    assert (status,) + tuple(capfd.readouterr()) == (0, '%s %s\n' % (job, slurm.NODE), '')


def test_an_allocation_that_ends_is_the_loss_of_the_host(cluster, tree):
    host = tree.connect('slurm:', **PYTHON)
    job = host.call(os.getenv, 'SLURM_JOB_ID')
    future = host.submit(time.sleep, 600)
    cluster.ask('scancel', job)
    with pytest.raises(mitogen.ConnectionLost):
        future.result()


@pytest.mark.parametrize('options, text', [
    (dict(partition='nobody'), 'invalid partition specified: nobody'), (dict(jobid=99999), 'Invalid job id'),
    (dict(node='nobody'), 'Invalid node name'), (dict(srun_args=['--no-such']), 'unrecognized option'),
    (dict(srun_path='/no/such/srun'), 'No such file'),
    (dict(python_path='/no/such/python'), 'No such file')])
def test_an_error_says_what_slurm_says(cluster, tree, options, text):
    with pytest.raises(mitogen.ConnectError, match=text):
        tree.srun(**options)


def test_a_queue_that_is_too_long_is_told_of(cluster, tree):
    tree.srun(srun_args=['--exclusive'], **PYTHON)
    with pytest.raises(mitogen.ConnectTimeout) as info:
        tree.connect('slurm:', timeout=1)
    assert 'squeue' in info.value.hint
    # Nobody is left waiting in the queue.
    testlib.wait_for(lambda: len(cluster.jobs()) == 1)


@pytest.mark.parametrize('word, text', [
    ('slurm:99999/*', 'Invalid job id'), ('slurm:/*', 'in no allocation'), ('slurm:x/*', 'write slurm:JOB')])
def test_an_allocation_that_is_none_is_a_line(cluster, capfd, word, text):
    with pytest.raises(SystemExit) as info:
        raise SystemExit(mitogen.command.main(['run', word, '--', 'true']))
    assert info.value.code == 2
    assert re.search(text, capfd.readouterr().err)
