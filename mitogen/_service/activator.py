# SPDX-License-Identifier: BSD-3-Clause
"""
Activator: loads a service that a caller asks for by name.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


class Activator(object):
    """
    Loads the services that callers ask for. Pool threads, one at a time.
    """
    not_active_msg = (
        'service %r is not active, and the caller may not have it loaded'
    )

    def is_permitted(self, mod_name, class_name, msg):
        """
        Return true if the sender of `msg` may have a class loaded.
        """
        return mitogen.core.has_parent_authority(msg)

    def _check(self, service_name, msg):
        """
        Ask :meth:`is_permitted` about a service, given by its name.

        :raises mitogen.core.CallError:
            Not permitted.
        """
        mod_name, _, class_name = mitogen.core.str_rpartition(
            service_name, '.')
        if not self.is_permitted(mod_name, class_name, msg):
            raise mitogen.core.CallError(self.not_active_msg, service_name)

    def activate(self, pool, service_name, msg):
        """
        Load a service, add it to the pool and return it.

        :param Pool pool:
        :param service_name:
            Text, names of module and class joined by a dot.
        :param msg:
            The call, or :data:`None` if everything is permitted.
        :raises mitogen.core.CallError:
            Not permitted.
        """
        if msg is not None:
            self._check(service_name, msg)
        mod_name, _, class_name = mitogen.core.str_rpartition(
            service_name, '.')
        if not mod_name:
            raise mitogen.core.CallError(
                'a service must be named by its module and class, not %r',
                service_name)
        module = mitogen.core.import_module(str(mod_name))
        service = getattr(module, class_name)(router=pool.router)
        pool.add(service)
        return service
