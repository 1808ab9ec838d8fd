from . import leaf

LEAF = leaf.VALUE
