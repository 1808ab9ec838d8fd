# SPDX-License-Identifier: BSD-3-Clause
"""
A listener at a UNIX socket, and its clients. In a checkout the parts are in the
folder `_unix`, and run here; see :mod:`mitogen._house`. Where it is installed,
and in a child, this is one text.
"""

from __future__ import absolute_import

import mitogen._house

mitogen._house.furnish(globals())
