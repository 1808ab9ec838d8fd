# SPDX-License-Identifier: BSD-3-Clause
"""
Limits: how much of this process one peer may use.

A *peer* is the neighbour that a message came by: a child, or a client of a
UNIX socket. It answers for all that is below it. Where a limit is for each
context instead, it says so.

A router that can have children has its limits in `router.limits`. A program may
set any of them, before or while the router runs::

    router.limits.service_calls = 5000

A limit refuses requests beyond it, and only the peer notices. How often
each limit has refused something is in ``router.stats()['refusals']``, by the
name of the limit. The log has a line for each peer and limit, at most once a
second.

To add a limit: a class attribute of :class:`Limits`, and a call of
``router.refuse(stream, 'its_name', 'text')`` where it refuses.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import mitogen.core


LOG = mitogen.core._limits_log

# They are part of the core, so that a child that is to have children needs no
# module more.
Limits = mitogen.core._Limits
of = mitogen.core._limits_of
may_log = mitogen.core._may_log_now
refuse = mitogen.core._refuse
