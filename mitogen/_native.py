# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled core's classes. In a checkout their parts are in the folder
`_native`, and run here; see :mod:`mitogen._house`. Where it is installed this
is one text.
"""

from __future__ import absolute_import

import mitogen._house

mitogen._house.furnish(globals())
