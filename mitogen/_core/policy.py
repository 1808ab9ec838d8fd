# SPDX-License-Identifier: BSD-3-Clause
# ruff: noqa: F821
"""
ImportPolicy: which modules a child may ask its parent for.
"""

from __future__ import absolute_import  # house

from mitogen.core import _seldom, module_lineage, ModuleDeniedByBlocksError, ModuleDeniedByOverridesError  # house
from mitogen.core import ModuleUnsuitableError  # house


#
# Importing from the parent.
#

class ImportPolicy(object):
    """
    What a child may ask its parent for. A name matches a set if it, or a
    package it lies in, is there.

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

    @_seldom
    def denied(self, fullname):
        """Return the exception class that says why not, or False."""
        if self.overrides and not self.overriden(fullname):
            return ModuleDeniedByOverridesError
        for names, cls in ((self.blocks, ModuleDeniedByBlocksError),
                           (Importer.ALWAYS_BLACKLIST, ModuleUnsuitableError)):
            if not set(names).isdisjoint(module_lineage(fullname)):
                return cls
        return False

    def denied_raise(self, fullname):
        """
        Return if `fullname` may be fetched.

        :raises ModuleNotFoundError: as :meth:`denied` says.
        """
        if (self.overrides and not self.overriden(fullname) or
                not self.blocks.union(Importer.ALWAYS_BLACKLIST).isdisjoint(
                    module_lineage(fullname))):
            cls = self.denied(fullname)
            raise cls(cls.fmt % (fullname,))
