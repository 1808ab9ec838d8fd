"""
Functions that import modules in children, or look at those that are imported.
"""

import sys

import mitogen.core


def call(module, function, *args):
    """
    Import a module here and call a function of it.
    """
    return getattr(mitogen.core.import_module(module), function)(*args)


def call_method(module, name, method, *args):
    """
    Call a method of an object that a module has.
    """
    getattr(getattr(mitogen.core.import_module(module), name), method)(*args)


def reload_module(name):
    import importlib
    # On Python 2 it is a built-in function.
    module = getattr(importlib, 'reload', None) or reload  # noqa: F821
    module = module(sys.modules[name])
    return module.__name__, module.__package__ or name.rpartition('.')[0], hasattr(module, '__path__')


def source_of(module):
    __import__(module)
    return sys.modules[module].__spec__.loader.get_source(module)


def source_of_core():
    import inspect
    return inspect.getsource(mitogen.core)


def loaded_modules():
    return sorted(sys.modules)


def find_owners(names):
    """
    Import (module, name) each; return the modules that define what is called so.
    """
    import importlib
    return [getattr(importlib.import_module(module), name).__module__ for module, name in names]
