"""
A package that puts one of its modules in its own place.
"""

import sys

import finder_pkg.replaced_pkg.real

sys.modules[__name__] = sys.modules['finder_pkg.replaced_pkg.real']
