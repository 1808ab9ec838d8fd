"""
Code that the demonstration's children run. They do not have it: each asks its
parent for it.
"""
