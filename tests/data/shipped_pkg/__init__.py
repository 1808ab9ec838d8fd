"""
A package that only the master has.
"""

NAME = __name__
