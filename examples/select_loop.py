"""
Wait for many things at once: the progress of five jobs, and the ends of them.

Progress of all jobs comes to one receiver. The result of each call comes to a receiver of its own;
these are in a select that forgets each of them once it has delivered, so that it is empty when all
are done. Both are in an outer select, which the loop waits for.
"""

import logging

import mitogen
import mitogen.core
import mitogen.select

JOBS = 5
TIMEOUT_SECONDS = 60

LOG = logging.getLogger('select_loop')


def work(number, status_to):
    """
    Do something, and tell of each step. Runs in the children.

    :param Sender status_to: Gets the numbers 0 to 4.
    """
    for step in range(5):
        status_to.send(step)
    return 'result of job %d' % (number,)


@mitogen.main()
def main(router):
    contexts = [router.local(name='host-%d' % (number,)) for number in range(JOBS)]
    # The sender of a message is known by the id of its context.
    names = dict((context.context_id, context.name) for context in contexts)

    status = mitogen.core.Receiver(router)
    calls = mitogen.select.Select()
    for number, context in enumerate(contexts):
        calls.add(context.call_async(work, number, status_to=status.to_sender()))

    updates = done = 0
    with mitogen.select.Select([status, calls], oneshot=False) as both:
        # Messages of one job come in the order in which it sent them, so no progress follows the
        # last result.
        while calls:
            try:
                msg = both.get(timeout=TIMEOUT_SECONDS)
            except mitogen.core.TimeoutError:
                LOG.error('nothing happened for %d seconds', TIMEOUT_SECONDS)
                raise SystemExit(1)

            name = names[msg.src_id]
            # The receiver that a message came to, also when that is a member of a member.
            if msg.receiver is status:
                updates += 1
                LOG.info('%s: update: step %d', name, msg.unpickle())
            else:
                try:
                    LOG.info('%s: completed: %s', name, msg.unpickle())
                    done += 1
                except mitogen.core.CallError as e:
                    LOG.error('%s: failed: %s', name, e)

    status.close()
    calls.close()
    LOG.info('all done: %d updates, %d completions', updates, done)
