# SPDX-License-Identifier: BSD-3-Clause
"""
The `ssh` of ours, in the process that the program starts.
"""

from __future__ import absolute_import  # house

import os  # house
import sys  # house

import mitogen  # house
import mitogen.core  # house
import mitogen.parent  # house

from mitogen.fakessh import Endpoint, Error, LOG, SSH_FAILED, _parse_args, _start_slave, _start_thread  # house


class Master(Endpoint):
    """
    The end that stands for `ssh`.
    """
    #: Exit status of the command, once it has ended.
    status = None

    def _on_exit(self, status):
        self.status = status
        # Makes read_control() return.
        self._control.close()

    def run(self, handles):
        """
        Connect standard input and output to the command, and return its exit
        status.
        """
        self.connect(handles)
        self.send('start', self.handles)
        # From here on only `sink` leads to our output: its readers see the end
        # once it is closed.
        sink = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)
        writer = _start_thread(self.copy_to_sink, sink)
        _start_thread(self.copy_source, 0)
        self.read_control()
        if self.status is None:
            raise Error('the connection was lost')
        # All of the output came before the status.
        writer.join()
        return self.status


def _ssh(dest_context_id, econtext):
    hostname, options, words = _parse_args(sys.argv[1:])
    for letter, value in options:
        if letter == 's':
            raise Error('there are no subsystems here')
        LOG.debug('option ignored: -%s %s', letter, value)
    if not words:
        raise Error('no command was given for %s, and there is no terminal',
                    hostname)

    router = econtext.router
    dest = router.context_by_id(dest_context_id)
    chain = mitogen.parent.CallChain(dest)
    handles = chain.call(_start_slave, mitogen.context_id,
                         mitogen.core.to_text(' '.join(words)))
    return Master(router, dest).run(handles)


@mitogen.core.takes_econtext
def _fakessh_main(dest_context_id, econtext):
    """
    Do the work of our `ssh`, and end the process.
    """
    status = SSH_FAILED
    try:
        status = _ssh(dest_context_id, econtext)
    except mitogen.core.Error:
        # This goes to the user's terminal, and the text may come from the
        # other side: so it is escaped.
        text = mitogen.core._printable(str(sys.exc_info()[1]), u'  ')
        sys.stderr.write('ssh (mitogen): %s\n' % (
            mitogen.parent._native_str(text),))
        sys.stderr.flush()
    finally:
        # A broker that exits would have the process end by a signal.
        broker, protocol = econtext.broker, econtext.stream.protocol
        end = mitogen.core.now() + 3.0
        while mitogen.core.now() < end and \
                broker.defer_sync(protocol.pending_bytes):
            mitogen.core.time.sleep(0.01)
        os._exit(status & 255)
