# SPDX-License-Identifier: BSD-3-Clause
"""
The commands of the program ``mitogen`` that work with hosts, a module for
each. A module imports at once only the names that describe its options, and
the rest when the command runs: ``mitogen --help`` is to be quick.
"""
