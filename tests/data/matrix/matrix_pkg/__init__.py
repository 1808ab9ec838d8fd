"""
A namespace package of the kind that every Python knows.
"""

__path__ = __import__('pkgutil').extend_path(__path__, __name__)
