# SPDX-License-Identifier: BSD-3-Clause
"""
The caller: starts a program, and listens to our `ssh` once that is there.
"""

from __future__ import absolute_import  # house

import os  # house
import shutil  # house
import tempfile  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.fakessh import LOG, _fakessh_main, _make_config, _with_our_ssh, _write_program  # house


def _open_stream(router, context_id, sock):
    """
    Make a socket the stream to a child that is yet to come, and return its
    context.
    """
    stream = mitogen.parent.MitogenProtocol.build_stream(
        router, remote_id=context_id,
        # Its messages carry our authority: the destination obeys us, and would not obey our `ssh`.
        auth_id=mitogen.context_id,
        local_id=mitogen.context_id, parent_ids=mitogen.parent_ids)
    context = mitogen.parent.Context(router, context_id,
                                     u'fakessh.%d' % (context_id,))
    stream.name = context.name
    stream.accept(sock, sock)
    # It ends with the program, and that may outlive us.
    stream.receive_side.keep_alive = False
    router.register(context, stream)
    # Answers find the way to it.
    router.broker.defer_sync(
        lambda: router.route_monitor.notice_stream(stream))
    return context


def _on_answer(fakessh, answer):
    """
    End our `ssh`, if it has not come so far as to end by itself. Broker
    thread.
    """
    try:
        result = answer.get(block=False).unpickle(throw=False)
    except mitogen.core.Error:
        # It is gone, as it should be.
        return
    LOG.error('%r: %s', fakessh, result)
    fakessh.send(mitogen.core.Message(handle=mitogen.core.SHUTDOWN))


# A dispatcher fills these two in.
@mitogen.core.takes_router
@mitogen.core.takes_econtext
def run(dest, router, args,
        deadline=None,  # not used
        econtext=None):
    """
    Run a program here. The first time that it starts `ssh`, the command which
    that is given runs in `dest`, whatever host is named. Blocks; not on a
    broker thread.

    The caller must have authority over `dest`, as for any call there.

    :param mitogen.core.Context dest:
    :param mitogen.core.Router router:
    :param args:
        List of the program and its arguments. It has to find `ssh` by PATH;
        scp, which does not, is told of ours if it is the program itself.
    :param deadline:
        Not used.
    :param mitogen.core.ExternalContext econtext:
        Of a child; :data:`None` in a master.
    :returns:
        Exit status of the program, as from :mod:`subprocess`.
    :raises OSError:
        The program cannot be started.
    """
    if econtext is not None:
        mitogen.parent.upgrade_router(econtext)

    folder = tempfile.mkdtemp(prefix='mitogen_fakessh')
    context_id = router.allocate_id()
    ours, theirs = mitogen.parent.create_socketpair()
    fakessh = proc = None
    try:
        path = _write_program(folder, _make_config(
            router, context_id, theirs.fileno(), econtext))
        ours.setblocking(False)
        mitogen.core.set_cloexec(ours.fileno())
        fakessh = _open_stream(router, context_id, ours)
        # Waits in the socket until somebody is there.
        answer = fakessh.call_async(_fakessh_main, dest.context_id)
        answer.notify = lambda _: _on_answer(fakessh, answer)

        env = dict(os.environ)
        env['PATH'] = folder + ':' + env.get('PATH', os.defpath)
        env['ARGV0'] = mitogen.parent.get_sys_executable()
        env['SSH_PATH'] = path
        options = {'pass_fds': [theirs.fileno()]} if mitogen.core.PY3 else {}
        proc = mitogen.parent.popen(args=_with_our_ssh(list(args), path), env=env,
                                    **options)
        theirs.close()
        status = proc.wait()
        answer.close()
        return status
    finally:
        theirs.close()
        if proc is not None and proc.poll() is None:
            proc.terminate()
            proc.wait()
        if fakessh is None:
            ours.close()
        else:
            router.disconnect(fakessh)
        shutil.rmtree(folder, ignore_errors=True)
