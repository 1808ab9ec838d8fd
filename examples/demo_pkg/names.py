"""
Finds the names that a Python source defines.
"""

import re

DEFINITION = re.compile(br'^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+([A-Za-z_][A-Za-z_0-9]*)', re.M)


def definitions(source):
    """
    Return a list of (name, line number) for each def and class statement of a source given as
    bytes.
    """
    found = []
    line, position = 1, 0
    for match in DEFINITION.finditer(source):
        line += source.count(b'\n', position, match.start())
        position = match.start()
        found.append((match.group(1).decode('ascii'), line))
    return found
