# SPDX-License-Identifier: BSD-3-Clause
"""
Losses: remembers how contexts were lost, for the errors of later calls.
"""

from __future__ import absolute_import  # house

import collections  # house

import mitogen  # house
import mitogen.core  # house
from mitogen.core import to_text  # house


class _Loss(object):
    """
    How one context was lost. Its text stands in the context, and grows.

    :param int neighbour_id: the context at the other end of the stream that
        ended, None if a stream did not.
    """
    def __init__(self, context, neighbour_id):
        self.context = context
        self.neighbour_id = neighbour_id
        self._parts = [context._loss, u'', u'']

    def tell(self, at, text):
        """Set a part of the text: 1 is the end of the process, 2 its words."""
        self._parts[at] = text
        self.context._loss = u''.join(self._parts)


class _Losses(object):
    """
    The last contexts that a router has lost. The broker thread adds to them,
    any thread reads.
    """
    #: Number of losses that are remembered.
    count_max = 256

    #: Lines of stderr that are told, and the characters of one.
    lines_max = 5
    line_max = 200

    def __init__(self):
        self._losses = collections.deque(maxlen=self.count_max)

    def add(self, context, neighbour_id):
        """Remember a context whose `_loss` was just set."""
        loss = _Loss(context, neighbour_id)
        loss.tell(2, self._last(getattr(context, '_last_words', ())))
        self._losses.append(loss)

    def _last(self, lines):
        """Return the last of some lines, text or bytes, as they are told."""
        lines = [mitogen.core._printable(line)[:self.line_max]
                 for line in list(lines)[-self.lines_max:]]
        return u''.join([u'\nLast lines of its stderr:'] + [
            u'\n  ' + line for line in lines]) if lines else u''

    def tell_of_end(self, neighbour_id, text):
        """Note how a process ended, whose stream has ended: `text` says it."""
        self._tell(neighbour_id, 1, u'; the process %s' % (text,))

    def tell_of_words(self, neighbour_id, lines):
        """Note the last lines that a process wrote to its stderr."""
        self._tell(neighbour_id, 2, self._last(lines))

    def _tell(self, neighbour_id, at, text):
        for loss in list(self._losses):
            if loss.neighbour_id == neighbour_id:
                loss.tell(at, text)

    def explain(self, text, no_route_msg):
        """
        Return the text of a dead message. If it says that there is no route to
        a context, add how that context was lost.
        """
        for loss in reversed(list(self._losses)):
            if text == no_route_msg % (loss.context.context_id, mitogen.context_id):
                return text + to_text(loss.context._loss)
        return text
