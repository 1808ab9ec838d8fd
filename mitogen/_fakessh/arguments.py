# SPDX-License-Identifier: BSD-3-Clause
"""
The arguments of OpenSSH.
"""

from __future__ import absolute_import  # house

from mitogen.fakessh import Error  # house


#: Options of OpenSSH, by whether they are followed by an argument.
OPTIONS_WITH_ARGUMENT = frozenset('BDEFIJLOPQRSWbceilmopw')
OPTIONS_ALONE = frozenset('1246ACGKMNTVXYafgknqstvxy')


def _parse_args(argv):
    """
    Understand the arguments of OpenSSH.

    :returns:
        `(hostname, options, words of the command)`; options are pairs of a
        letter, and the argument or :data:`None`.
    :raises Error:
        They make no sense.
    """
    rest = list(argv)
    hostname = None
    options = []
    while rest:
        word = rest[0]
        if word == '--':
            del rest[0]
            if hostname is None and rest:
                hostname = rest.pop(0)
            break
        if len(word) > 1 and word[0] == '-':
            del rest[0]
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                value = None
                if letter in OPTIONS_WITH_ARGUMENT:
                    if not letters and not rest:
                        raise Error('option -%s needs an argument', letter)
                    value = letters or rest.pop(0)
                    letters = ''
                elif letter not in OPTIONS_ALONE:
                    raise Error('there is no option -%s', letter)
                options.append((letter, value))
        elif hostname is None:
            hostname = rest.pop(0)
        else:
            break
    if hostname is None:
        raise Error('no host name was given')
    return hostname, options, rest
