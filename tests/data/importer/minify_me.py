# First line stays.
"""
A docstring that does not travel.
"""

# !mitogen: minify_safe


def source():
    """
    Return our own source.
    """
    # A comment that does not travel.
    return __loader__.get_source(__name__)
