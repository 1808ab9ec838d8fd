"""
A function that keeps every other thread of its process from running Python.
"""

import sys
import time


def nothing():
    """
    Have this module here: the broker thread, which brings it, is at rest again when the answer has come.
    """


def hold_the_interpreter(sender, seconds):
    """
    Tell `sender` that this runs, then loop for some seconds in pure Python without ever giving the GIL away.

    :returns: how many times round.
    """
    sender.send(None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        end, count = time.time() + seconds, 0
        while time.time() < end:
            count += 1
        return count
    finally:
        sys.setswitchinterval(before)


def send_and_hold_the_interpreter(sender, count, seconds):
    """
    Send numbers as fast as this goes, then keep the GIL.
    """
    for number in range(count):
        sender.send(number)
    return hold_the_interpreter(sender, seconds)
