"""
Asks for resources, in whatever process it is in.
"""

import importlib.resources
import sys

import resource_pkg
import resource_pkg.sub_pkg


def is_resource(name):
    # importlib.resources.is_resource() of 3.11 and 3.12 lists the package, which a child cannot do.
    reader = resource_pkg.__loader__.get_resource_reader('resource_pkg')
    found = reader.is_resource(name)
    if sys.version_info >= (3, 10):
        assert importlib.resources.files('resource_pkg').joinpath(*name.split('/')).is_file() is found
    return found


def read(package, name):
    with importlib.resources.open_binary(package, name) as fp:
        content = fp.read()
    if sys.version_info >= (3, 10):
        assert importlib.resources.files(package).joinpath(name).read_bytes() == content
    return content
