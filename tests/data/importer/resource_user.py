"""
Asks for resources, in whatever process it is in.
"""

import importlib.resources

import resource_pkg
import resource_pkg.sub_pkg


def is_resource(name):
    # importlib.resources.is_resource() of some versions lists the package, which a child cannot do.
    reader = resource_pkg.__loader__.get_resource_reader('resource_pkg')
    found = reader.is_resource(name)
    if hasattr(importlib.resources, 'files'):
        assert importlib.resources.files('resource_pkg').joinpath(name).is_file() is found
    return found


def read(package, name):
    with importlib.resources.open_binary(package, name) as fp:
        return fp.read()
