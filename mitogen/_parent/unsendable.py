# SPDX-License-Identifier: BSD-3-Clause
"""
Which argument of a call may not cross, and what to send in its place. The other end can only name
the class.
"""

from __future__ import absolute_import  # house

import re  # house

import mitogen.core  # house
from mitogen.core import to_text  # house
from mitogen.parent import ValueRefused  # house


#: How classes look in a pickle. Text may look so, too: a match proves nothing.
_CLASS_NAMES = re.compile(br'c([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n')

_PERMITTED = frozenset([
    (b'_codecs', b'encode'), (b'__builtin__', b'bytes'), (b'mitogen.core', b'Kwargs'),
    (b'mitogen.core', b'Blob'), (b'mitogen.core', b'Secret'), (b'mitogen.core', b'_unpickle_context'),
    (b'mitogen.core', b'_unpickle_sender'), (b'mitogen.core', b'_unpickle_call_error'),
    (b'mitogen.core', b'_unpickle_buffer'),
    (b'__builtin__', b'set'), (b'__builtin__', b'frozenset'), (b'__builtin__', b'bytearray'),
    (b'datetime', b'datetime'), (b'datetime', b'date'), (b'datetime', b'timedelta'), (b'datetime', b'timezone'),
])

#: Bytes of a message that are looked through.
_LOOKED_THROUGH = 65536

#: Name of a type -> advice: the value to send in its place.
_REMEDIES = {
    u'defaultdict': u'dict(value)',
}
_OTHER_REMEDY = u'what it consists of: text, bytes, numbers, lists, tuples and dicts of these'
_REGISTER = u', or register its class, see mitogen.values'

if mitogen.core.CORE == 'pure':
    # Python's pickler writes all of them.
    mitogen.core.Message._is_special = True


def _why_unreadable(router, value):
    """
    Return why readers refuse a value, or None.
    """
    msg = mitogen.core.Message.pickled(value)
    msg.router = router
    fp = mitogen.core.BytesIO(bytes(msg.data))
    try:
        # Not `unpickle`, which would log it.
        mitogen.core.Unpickler(fp, msg._find_global).load()
    except mitogen.core.StreamError as e:
        return str(e)
    except Exception:
        # The other end will say what is wrong.
        pass
    return None


def _refuse_unsendable(spec, router, data):
    """
    Raise a CallError if an argument of a call may not cross, as the call
    itself would.

    :param CallSpec spec: the call.
    :param bytes data: the pickle of all of it, which Python has written.
    """
    if all(names in _PERMITTED for names in _CLASS_NAMES.findall(data[:_LOOKED_THROUGH])):
        return
    named = [(u'argument %d' % (i,), arg) for i, arg in enumerate(spec.args, 1)]
    named += [(u'argument %s' % (to_text(key),), arg) for key, arg in sorted(spec.kwargs.items())]
    for name, value in named:
        why = _why_unreadable(router, value)
        if why:
            module, _, kind = to_text(why).rpartition(u"'/'")
            kind = kind.strip(u"'")
            remedy = _REMEDIES.get(kind, _OTHER_REMEDY)
            if not module.endswith((u'__builtin__', u'exceptions', u'collections')):
                # It may be a class of the program.
                remedy += _REGISTER
            where = u'%s of %s' % (name, spec._name())
            error = ValueRefused(
                u'mitogen.core.StreamError: %s\n%s is, or has in it, a value of type %s, which may not be '
                u'sent. Send %s.' % (why, where, kind, remedy))
            error.where = where
            raise error
