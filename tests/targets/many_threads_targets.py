"""
Functions for tests/load/many_threads.py.
"""


def add(a, b):
    return a + b


def echo(value):
    return value


def feed(sender, count):
    for i in range(count):
        sender.send(i)
    sender.close()
