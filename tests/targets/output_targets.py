"""
Functions that write and log in children.
"""

import logging
import os
import threading


def log(name, level, message, *args):
    logging.getLogger(name).log(level, message, *args)


def print_line(text):
    print(text)


def write_fd(fd, data):
    os.write(fd, data)


def write_fd_whole(fd, data):
    while data:
        data = data[os.write(fd, data):]


def write_stdout(size):
    """
    Write many bytes to descriptor 1; return how many one loop of os.write() wrote.
    """
    line = b'x' * 1023 + b'\n'
    total = 0
    while total < size:
        total += os.write(1, line)
    return total


def log_on_io_logger(name):
    """
    Log on the per-I/O logger, which never leaves the process, and then on another one.
    """
    logging.getLogger('mitogen.io').setLevel(logging.DEBUG)
    logging.getLogger('mitogen.io').info('stays here')
    logging.getLogger(name).warning('comes through')


def log_from_threads(threads, count):
    def run(number):
        for i in range(count):
            logging.getLogger('threads').info('record %d.%d', number, i)

    running = [threading.Thread(target=run, args=(n,)) for n in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
