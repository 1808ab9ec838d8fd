from shipped_pkg import second
from shipped_pkg.inner import leaf


def value():
    return second.value() + leaf.VALUE


def fail():
    raise ValueError('from the shipped package')


def where():
    return __file__


def late():
    import shipped_pkg.late
    return shipped_pkg.late.VALUE


def absent():
    import shipped_pkg.no_such_submodule
    return shipped_pkg.no_such_submodule
