import sys


class Replacement(object):
    value = u'replaced'


sys.modules[__name__] = Replacement()
