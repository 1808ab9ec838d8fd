"""
A function that keeps every other thread of its process from running Python.
"""

import mmap
import sys
import time


KEEP = b'0'


def nothing():
    """
    Have this module here: the broker thread, which brings it, is at rest again when the answer has
    come.
    """


def hold_the_interpreter(sender, seconds, flag):
    """
    Tell `sender` that this runs, then loop for some seconds in pure Python without ever giving the
    GIL away, or as long as the file `flag` begins with the byte KEEP. It goes round once at least.

    :returns: how many times round.
    """
    with open(flag, 'rb') as fp:
        # Reading a file gives the GIL away, reading memory does not.
        memory = mmap.mmap(fp.fileno(), 1, prot=mmap.PROT_READ)
    sender.send(None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        end, count = time.time() + seconds, 1
        while memory[:1] == KEEP and time.time() < end:
            count += 1
        return count
    finally:
        sys.setswitchinterval(before)
        memory.close()


def send_and_hold_the_interpreter(sender, count, seconds, flag):
    """
    Send numbers as fast as this goes, then keep the GIL.
    """
    for number in range(count):
        sender.send(number)
    return hold_the_interpreter(sender, seconds, flag)
