# SPDX-License-Identifier: BSD-3-Clause
"""
ImportPolicy: which modules a child may ask its parent for.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, Importer, ModuleDeniedByBlocksError, ModuleDeniedByOverridesError  # house
from mitogen.core import ModuleUnsuitableError  # house


def module_lineage(fullname):
    """Yield `a`, `a.b`, `a.b.c` for `a.b.c`."""
    bits = fullname.split('.')
    for i in range(len(bits)):
        yield '.'.join(bits[:i + 1])


class ImportPolicy(object):
    """
    The modules that a child may ask its parent for. A name matches a set if it,
    or a package it lies in, is there.

    :param overrides: fetch these even if there is a local copy; if there are
        any, nothing else may be fetched.
    :param blocks: never fetch these.
    """
    def __init__(self, overrides=(), blocks=()):
        self.overrides = set(overrides)
        self.blocks = set(blocks)

    @_seldom
    def __repr__(self):
        return 'ImportPolicy(overrides=%r, blocks=%r)' % (
            sorted(self.overrides), sorted(self.blocks))

    def overriden(self, fullname):
        """Return whether `fullname` is to be fetched even if it is here."""
        return not self.overrides.isdisjoint(module_lineage(fullname))

    def denied(self, fullname):
        """Return the exception class that says why not, or False."""
        if self.overrides and not self.overriden(fullname):
            return ModuleDeniedByOverridesError
        lineage = set(module_lineage(fullname))
        for names, cls in ((self.blocks, ModuleDeniedByBlocksError),
                           (Importer.ALWAYS_BLACKLIST, ModuleUnsuitableError)):
            if not lineage.isdisjoint(names):
                return cls
        return False

    def denied_raise(self, fullname):
        """
        Return if `fullname` may be fetched.

        :raises ModuleNotFoundError: as :meth:`denied` says.
        """
        cls = self.denied(fullname)
        if cls:
            raise cls(cls.fmt % (fullname,))
