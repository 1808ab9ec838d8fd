# SPDX-License-Identifier: BSD-3-Clause
"""
Closure: the modules that a module needs, in the order in which it will need them.
"""

from __future__ import absolute_import  # house

import mitogen.core  # house


class _Closure(object):
    """
    Walks from a module to those that it imports, as the import system will:
    packages before their modules, and the modules that one imports before
    those of its later imports. Nothing is imported for it.

    :param needs:
        Function that returns, for the name of a module, the list of those that
        it imports: pairs of name and whether that surely is a module, as it
        may also be something else that a package has; :data:`None` if it may be
        anything.
    :param is_wanted:
        Function that tells whether a module is to be visited: called with its
        name and that truth value.
    """
    def __init__(self, needs, is_wanted):
        self._needs = needs
        self._is_wanted = is_wanted
        self._seen = set()

    def has_seen(self, fullname):
        """
        Tell whether a module was visited.
        """
        return fullname in self._seen

    def walk(self, pairs):
        """
        Yield the names of modules and of those that they need.

        :param pairs: the modules, as `needs` returns them.
        """
        stack = [iter(pairs)]
        while stack:
            for name, is_sure in stack[-1]:
                if name not in self._seen and self._is_wanted(name, is_sure):
                    self._seen.add(name)
                    yield name
                    stack.append(iter(self._needs(name)))
                    break
            else:
                stack.pop()


def _with_packages(pairs):
    """
    Yield pairs of name and sureness, each after those of the packages that hold
    it.
    """
    seen = set()
    for fullname, is_sure in pairs:
        if fullname in seen:
            continue
        package = fullname.rpartition('.')[0]
        if package and package not in seen:
            for name in mitogen.core.module_lineage(package):
                if name not in seen:
                    seen.add(name)
                    yield name, None if is_sure is None else True
        seen.add(fullname)
        yield fullname, is_sure
