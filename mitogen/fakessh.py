# SPDX-License-Identifier: BSD-3-Clause
"""
An `ssh` of ours for programs that start one. In a checkout the parts are in the
folder `_fakessh`, and run here; see :mod:`mitogen._house`. Where it is installed,
and in a child, this is one text.
"""

from __future__ import absolute_import

import mitogen._house

mitogen._house.furnish(globals())
