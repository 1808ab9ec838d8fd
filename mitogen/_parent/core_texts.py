# SPDX-License-Identifier: BSD-3-Clause
"""
The texts of the core that a starting child is sent, each for one kind of child.
"""

from __future__ import absolute_import  # house

import binascii  # house
import marshal  # house
import threading  # house
import zlib  # house

import mitogen.core  # house
from mitogen.core import b  # house
from mitogen.parent import PY3  # house


#: Stands before the source, and ends with an empty line. It runs in the
#: namespace of the first stage, where `d` is the whole text, and executes the
#: rest of `d` as `mitogen.core`. If the first stage has imported an installed
#: package, that is forgotten.
_UNPACK = (
    b"d=d[d.index(b'\\n\\n')+2:];m=sys.modules;"
    b"[m.pop(s)for s in list(m)if s.split('.')[0]=='mitogen'];"
    b"h=m['mitogen']=type(sys)('mitogen');h.__path__=[];s='mitogen.core';"
    b"h.core=h=m[s]=type(sys)(s);h.__file__='x/mitogen/core.py';"
    b"h._core_source=d[:d.rindex(b'\\n',0,-1)];"
    b"exec(compile(d,h.__file__,'exec'),h.__dict__)\n\n"
)

#: Frequent phrases of the source, each of which takes zlib more than one
#: symbol. They travel as one byte each, from 128 upwards, which ASCII lacks.
#: The list was found by trial.
_PHRASES = (
    b'\n   except ', b'\n def ', b'turn', b'stream', b'__init__', b'Error',
    b'or ', b'st', b' in ', b'name', b'azyLogge', b'False', b'all', b'import',
    b' and ', b'\n  if ', b'\n  ', b'al', b'handle', b'atch', b' is ',
    b'module', b'write', b'ar', b'_by', b'=_Late()', b'disconnect', b'pickl',
    b'if ', b'ull', b'context', b'protocol', b'ck', b'source', b'transmit',
    b'to_text(', b'\n ', b'msg', b'_id', b'mitogen', b'rai', b'shutdow',
    b'\nclass ', b'.get(', b'\ndef ', b'True', b'try:', b'get', b'broker',
    b'_complete()', b'None', b'ing', b'class', b'er', b'os.', b'set', b'de',
    b'not ', b'sys.', b'se', b'or', b'in', b'shut', b'ceiv', b'no',
    b'Protocol', b'it', b'lo', b'S.', b'en', b'LOG.', b'ess', b'on', b're',
    b'nt', b'li', b'size', b'out', b'xcept', b'is', b'op',
)

#: Stands before `_UNPACK` if phrases were replaced, and puts them back. Python 3
#: only.
_EXPAND = (
    b"for h,s in enumerate(b'" +
    b'|'.join(_PHRASES).replace(b'\n', b'\\n') +
    b"'.split(b'|'),128):d=d.replace(bytes([h]),s)\n"
)


def _replace_phrases(text):
    """
    Return bytes with a byte in place of each of `_PHRASES`.
    """
    for code, phrase in enumerate(_PHRASES, 128):
        text = text.replace(phrase, bytes(bytearray([code])))
    return text


class PartialZlib(object):
    """
    Compresses a large text once and then, cheaply and as often as wanted, the
    same text with another ending.

    :param bytes s: the part that stays.
    :param int level: of the compression, 0 for none.
    """
    #: Whether the text lacks a part of the core, which the child may fetch later.
    _divided = False

    def __init__(self, s, level=9):
        self.s = s
        self._compressor = zlib.compressobj(level)
        self._head = self._compressor.compress(s)

    def append(self, s):
        """
        Return one complete zlib stream of the base followed by `s`.
        """
        compressor = self._compressor.copy()
        return self._head + compressor.compress(s) + compressor.flush()


def _get_core_source():
    """
    Return the source of `mitogen.core` as text. `mitogen.master` replaces this
    function by one that returns a smaller form.
    """
    return mitogen.core.get_core_source()


_core_source_lock = threading.Lock()
_upgrade_lock = threading.Lock()


def _replace_locks():
    global _core_source_lock, _upgrade_lock
    _core_source_lock = threading.Lock()
    _upgrade_lock = threading.Lock()


mitogen.core._fork_hooks.append(_replace_locks)
_core_source_partial = None    # guarded by _core_source_lock
_core_source_origin = None     # the function that made it; same guard


def get_core_source_partial():
    """
    Return the `PartialZlib` of the core's source that all connections of this
    process share. Any thread.
    """
    global _core_source_partial, _core_source_origin
    with _core_source_lock:
        if _core_source_origin is not _get_core_source:
            source = _get_core_source()
            if not isinstance(source, mitogen.core.BytesType):
                source = source.encode('utf-8')
            _core_source_partial = PartialZlib(_UNPACK + source)
            _core_source_origin = _get_core_source
        return _core_source_partial


#: Returns the core's source, as small as it gets for one kind of child:
#: ``_reduce_core_source(is_python_3, whole)``. Two texts: the one that the
#: child is sent, and the one that it may fetch later, None if there is none.
#: Set by `mitogen.master`; other contexts pass on what they have been sent.
_reduce_core_source = None

_partials = {}    # kind of child -> PartialZlib; same guard

#: Compressed, once a child needs it; same guard.
_late_source = None

_FUTURE = b'from __future__ import absolute_import'

#: Pythons before know no `__getattr__` of a module: they are sent everything.
_LATE_NAMES_SINCE = 0x03070000


def _was_sent_all():
    """
    Tell whether this process was not sent a part of the core only.
    """
    # Only a reduced core has that class.
    return '_Late' not in mitogen.core.__dict__ or \
        b'\ndef enable_profiling(' in mitogen.core._core_source


def _can_serve(python, whole):
    """
    Tell whether this process can start a child from the core's source that it
    has. A reduced source works for children of the same kind only.

    :param int python: the child's :data:`sys.hexversion`.
    :param bool whole: the child needs everything from the start.
    """
    if '_Late' not in mitogen.core.__dict__:
        return True
    return (python >= 0x03000000) == PY3 and (
        _was_sent_all() or
        not whole and python >= _LATE_NAMES_SINCE)


def _get_reduced_partial(python, whole):
    """
    Return a `PartialZlib` of the smallest source that a child can run. Any
    thread.

    :param int python: the child's :data:`sys.hexversion`.
    :param bool whole: the child needs everything from the start.
    """
    global _late_source
    if _reduce_core_source is None:
        return get_core_source_partial()
    with _core_source_lock:
        key = python >= 0x03000000, whole or python < _LATE_NAMES_SINCE
        if key not in _partials:
            source, late = _reduce_core_source(*key)
            source = source.encode('utf-8')
            # `_EXPAND` takes each byte from 128 upwards for a phrase, so the
            # source must be ASCII. It always was.
            divided = late is not None and max(bytearray(source)) < 128
            if divided:
                _late_source = zlib.compress(late.encode('utf-8'), 9)
                source = _EXPAND + _UNPACK + _replace_phrases(source)
            else:
                source = _UNPACK + source
            partial = _partials[key] = PartialZlib(source)
            partial._divided = divided
        return _partials[key]


def get_late_source(package, resource):
    """
    Return the rest of the core, compressed, if `package` and `resource` are
    the names by which a child with a divided core asks for it, else None.
    """
    if (package, resource) == (u'mitogen', u'core.late'):
        return _late_source
    return None


#: A text that runs the rest of the core, be it as bytecode or, where that is of another kind, from
#: source.
_LATE_CODE = b(
    'exec(__import__("marshal").loads(%(decode)s(%(code)r))'
    ' if __import__("_frozen_importlib_external").MAGIC_NUMBER == %(decode)s(%(magic)r)'
    ' else __import__("zlib").decompress(%(decode)s(%(source)r)))\n')

#: Such a text, compressed, once it is made, and whether that has begun. Both are only ever set.
_late_code = None
_late_code_begun = False


def _prepare_late_code():
    """
    Have the rest of the core compiled while a child of our kind of interpreter starts, which will
    need it for its first import. It takes as long to compile as some imports. Any thread, after
    :func:`_get_reduced_partial`.
    """
    global _late_code_begun
    if PY3 and not _late_code_begun:
        _late_code_begun = True
        thread = threading.Thread(target=_make_late_code, name='mitogen-late-core')
        thread.daemon = True
        try:
            thread.start()
        except RuntimeError:
            # The system gives no thread. Then children compile it.
            pass


def _make_late_code():
    global _late_code
    import importlib.util
    late = _late_source
    code = marshal.dumps(compile(zlib.decompress(late), 'x/mitogen/core.py', 'exec', 0, True))
    words = dict((name, binascii.b2a_base64(data).strip().decode()) for name, data in (
        ('code', code), ('magic', importlib.util.MAGIC_NUMBER), ('source', late)))
    words['decode'] = '__import__("binascii").a2b_base64'
    # Not compressed: it goes through a pipe.
    _late_code = zlib.compress((_LATE_CODE.decode() % words).encode(), 0)


def _get_late_code():
    """
    Return what :func:`get_late_source` does for a child of this machine that runs our kind of
    bytecode, :data:`None` if that is not made yet. Any thread.
    """
    return _late_code


def _late_source_in(late):
    """
    Return the rest of the core, compressed, as it is sent through a network.

    :param bytes late: it, or the text with its bytecode.
    """
    text = zlib.decompress(late)
    if text.startswith(_LATE_CODE[:20]):
        return binascii.a2b_base64(text.split(b"'")[-2])
    return late


def _get_code_partial():
    """
    Return a `PartialZlib` of a text that loads the core's bytecode. The child
    must run the same interpreter as this process. The text is several times
    longer than source and loads in a twentieth of the time, so it is for
    children on this machine. Any thread.
    """
    with _core_source_lock:
        if 'code' not in _partials:
            source = _get_core_source()
            if not isinstance(source, mitogen.core.BytesType):
                source = source.encode('utf-8')
            text = source
            if PY3:
                # There it would do nothing but import another module.
                text = text.replace(_FUTURE, b'')
            # A child that was started in this way needs it for its own
            # children.
            code = getattr(mitogen.core, '_core_code', None) or marshal.dumps(
                compile(text, 'x/mitogen/core.py', 'exec', 0, True))
            decode = b"__import__('binascii').a2b_base64('%s')"
            text = b('_core_source=__import__("zlib").decompress(%s)\n'
                     '_core_code=%s\n'
                     'exec(__import__("marshal").loads(_core_code))\n')
            text %= tuple(decode % (binascii.b2a_base64(data).strip(),)
                          for data in (zlib.compress(source, 1), code))
            _partials['code'] = PartialZlib(_UNPACK + text, 0)
        return _partials['code']
