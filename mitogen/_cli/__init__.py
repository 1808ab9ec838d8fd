# SPDX-License-Identifier: BSD-3-Clause
"""
The commands of the program ``mitogen`` that work with hosts, a module for each. What a module needs to describe its
options is imported at once, what it needs to work is imported when it does: ``mitogen --help`` is to be quick.
"""
