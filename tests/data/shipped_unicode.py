# coding: utf-8

TEXT = u'grüße, привет, 你好'


def text():
    return TEXT
