# SPDX-License-Identifier: BSD-3-Clause
"""
The destination, where the command runs that our `ssh` was given.
"""

from __future__ import absolute_import  # house

import os  # house
import signal  # house
import subprocess  # house
import sys  # house

import mitogen.core  # house
import mitogen.parent  # house

from mitogen.fakessh import Endpoint, LOG, SSH_FAILED, _start_thread  # house


class Slave(Endpoint):
    """
    The end that runs the command.

    :param str command_line:
        For a shell.
    """
    def __init__(self, router, peer, command_line):
        super(Slave, self).__init__(router, peer)
        self._command_line = command_line
        self._proc = None

    def serve(self):
        """
        Run the command once the peer says so. Returns when the peer is gone.
        """
        try:
            self.read_control()
        finally:
            self._terminate()
            self.close()

    def _on_start(self, handles):
        self.connect(handles)
        home = os.path.expanduser('~')
        options = {'start_new_session': True}
        if not mitogen.core.PY3:
            options = {'preexec_fn': os.setsid, 'close_fds': True}
        try:
            self._proc = mitogen.parent.popen(
                args=self._command_line,
                shell=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=home if os.path.isdir(home) else '/',
                **options
            )
        except Exception:
            LOG.exception('cannot run %r', self._command_line)
            self._peer_data.close()
            self._send_exit(SSH_FAILED)
            return
        _start_thread(self.copy_to_sink, os.dup(self._proc.stdin.fileno()))
        self._proc.stdin.close()
        _start_thread(self._run)

    def _send_exit(self, status):
        # Closed before the status is sent: the peer ends when it gets the status, and that must not
        # look like the loss of a context that a thread waits for.
        self.close()
        self.send('exit', status)

    def _run(self):
        proc = self._proc
        try:
            self.copy_source(proc.stdout.fileno())
            status = proc.wait()
            LOG.debug('%r exited with %d', self._command_line, status)
            self._send_exit(status if status >= 0 else SSH_FAILED)
        except mitogen.core.Error:
            LOG.debug('the broker exited before %r', self._command_line)
        finally:
            proc.stdout.close()

    def _terminate(self):
        proc = self._proc
        if proc is not None and proc.poll() is None:
            try:
                os.killpg(proc.pid, signal.SIGTERM)
            except OSError:
                # Just now it ended by itself.
                LOG.debug('%r: %s', proc, sys.exc_info()[1])

    def _on_exit(self, _status):
        self._terminate()


@mitogen.core.takes_router
def _start_slave(src_id, command_line, router):
    """
    Prepare to run a command for another context.

    :returns: handles that the other context is to send to.
    """
    LOG.debug('context %d wants to run %r', src_id, command_line)
    slave = Slave(router, router.context_by_id(src_id), command_line)
    handles = slave.handles
    _start_thread(slave.serve)
    return handles
