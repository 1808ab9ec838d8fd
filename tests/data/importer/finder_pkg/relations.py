"""
Imports in many ways.
"""

from __future__ import absolute_import

import logging
import sys

import mitogen.core
import simple_pkg.b
import zz_never_loaded
from finder_pkg import a
from finder_pkg.sub import VALUE
from . import b
from .b import finder_pkg


def function():
    import simple_pkg.a
    return simple_pkg.a


class Class(object):
    import simple_pkg.c
