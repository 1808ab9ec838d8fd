# -*- coding: latin-1 -*-
# Bytes as they are: é


def text():
    return u"é"
