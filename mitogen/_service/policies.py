# SPDX-License-Identifier: BSD-3-Clause
"""
Policies: decide which contexts may call a method of a service.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


class Policy(object):
    """
    Decides which contexts may call a method.
    """
    def is_authorized(self, service, msg):
        """
        Return true if the message, a call, may be obeyed. Pool thread.

        :param Service service:
        :param mitogen.core.Message msg:
        """
        raise NotImplementedError()


class AllowAny(Policy):
    """
    Every context may call.
    """
    def is_authorized(self, service, msg):
        return True


class AllowParents(Policy):
    """
    A caller needs the authority of this context, or of one that it descends
    from.
    """
    def is_authorized(self, service, msg):
        return mitogen.core.has_parent_authority(msg)
