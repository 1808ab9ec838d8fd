"""
Asks for resources, in whatever process it is in.
"""

import importlib.resources
import sys
import warnings

import resource_pkg
import resource_pkg.sub_pkg


def is_resource(name):
    reader = resource_pkg.__loader__.get_resource_reader('resource_pkg')
    found = reader.is_resource(name)
    # The functions of importlib.resources took no paths, and were deprecated, before 3.13.
    if sys.version_info >= (3, 13) or '/' not in name:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)
            assert importlib.resources.is_resource('resource_pkg', name) is found
    if sys.version_info >= (3, 10):
        assert importlib.resources.files('resource_pkg').joinpath(*name.split('/')).is_file() is found
    return found


def read(package, name):
    with importlib.resources.open_binary(package, name) as fp:
        content = fp.read()
    if sys.version_info >= (3, 10):
        assert importlib.resources.files(package).joinpath(name).read_bytes() == content
    return content
