"""
Many contexts: an idle tree costs nothing, and nothing has a limit of a few hundred.
"""

import os
import resource
import time

import targets
import testlib


def switches(pid):
    """
    Return how often the threads of a process went to sleep so far.
    """
    total = 0
    for tid in os.listdir('/proc/%d/task' % pid):
        try:
            with open('/proc/%d/task/%s/status' % (pid, tid)) as fp:
                for line in fp:
                    if line.startswith('voluntary_ctxt_switches'):
                        total += int(line.split()[1])
        except IOError:
            # A thread that has ended meanwhile.
            pass
    return total


def open_descriptors():
    return len(os.listdir('/proc/self/fd'))


def test_idle_tree_of_twenty_contexts_is_asleep(router):
    """
    Not one wake-up of any thread of any of them within a second.
    """
    contexts = [router.local() for _ in range(4)]
    for parent in contexts[:4]:
        contexts += [router.local(via=parent) for _ in range(4)]
    assert len(contexts) == 20
    pids = [context.call(os.getpid) for context in contexts]

    def asleep():
        before = [switches(pid) for pid in pids]
        time.sleep(1.0)
        return before == [switches(pid) for pid in pids]

    # After their last call they log and settle, which takes a moment.
    testlib.wait_for(asleep, what='a second in which all children sleep')
    assert [context.call(os.getpid) for context in contexts] == pids


def test_descriptors_beyond_what_select_can_name(router):
    """
    select(2) has no numbers from 1,024 on; contexts and their calls do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    spare = []
    try:
        while not spare or spare[-1] < 1100:
            spare.append(os.dup(0))
        contexts = [router.local() for _ in range(3)]
        contexts.append(router.local(via=contexts[0]))
        assert len(set(context.call(os.getpid) for context in contexts)) == 4
        assert contexts[3].call(targets.add, 1, 2) == 3
    finally:
        for fd in spare:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_per_context_grow_evenly(router):
    """
    Each further child costs the master as many descriptors as the one before.
    """
    counts = []
    for _ in range(6):
        router.local().call(os.getpid)
        counts.append(open_descriptors())
    steps = set(after - before for before, after in zip(counts[1:], counts[2:]))
    assert len(steps) == 1 and steps.pop() <= 2


def test_chain_of_ten(router):
    context = None
    for _ in range(10):
        context = router.local(via=context) if context else router.local()
    assert context.call(targets.add, 20, 3) == 23
