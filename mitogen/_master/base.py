# SPDX-License-Identifier: BSD-3-Clause
"""
The root of a tree, and the parts of a router that only the first process has.
It finds the source of modules and serves it to children, hands out context
ids, and receives the logs of the whole tree.

Masters start often, so modules that only some masters need (the import
machinery's helpers, resources, :mod:`pkgutil`) are imported where they are
used.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import binascii
import collections
import errno
import logging
import marshal
import os
import re
import string
import sys
import threading
import time
import types
import zlib

import mitogen
import mitogen.core
import mitogen.parent

from mitogen.core import b
from mitogen.core import to_text


LOG = logging.getLogger('mitogen')
FINDER_LOG = logging.getLogger('mitogen.importer')
RESPONDER_LOG = logging.getLogger('mitogen.responder')

PY3 = sys.version_info >= (3,)
