# SPDX-License-Identifier: BSD-3-Clause
"""
The compiled core, for the modules of a tree that use it themselves.
"""

from __future__ import annotations

import sys
from typing import Any

import mitogen.core

#: The extension, or None with the pure core. It is not imported here: the finder of modules would
#: believe that each module which needs this one needs the extension.
core: Any = sys.modules['_mitogen_core'] if mitogen.core.CORE == 'native' else None
