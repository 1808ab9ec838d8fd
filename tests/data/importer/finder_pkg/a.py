"""
Imports nothing.
"""
