# SPDX-License-Identifier: BSD-3-Clause
"""
What a parent needs. In a checkout its parts are in the folder `_parent`, and
run here; see :mod:`mitogen._house`. Where it is installed this is one text.
"""

from __future__ import absolute_import

import mitogen._house

mitogen._house.furnish(globals())
