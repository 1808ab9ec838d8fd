"""
Reading files that may be gone, such as those of /proc.
"""


def text(path):
    """
    Return what a file holds, or None.
    """
    try:
        with open(path) as fp:
            return fp.read()
    except IOError:
        return None
