# SPDX-License-Identifier: BSD-3-Clause
"""
Values: classes of a program that may travel.
"""

from mitogen._values import register  # noqa: F401

__all__ = ['register']
