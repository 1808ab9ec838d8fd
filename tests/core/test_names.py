"""
Constants, texts, and the names that programs made for other releases import.
"""

import os
import select

import pytest

import mitogen.core


# ---- partition

@pytest.mark.parametrize('function,args,result', [
    ('str_partition', (u'dave', u'x'), (u'dave', u'', u'')),
    ('str_partition', (u'a.b.c', u'.'), (u'a', u'.', u'b.c')),
    ('str_rpartition', (u'dave', u'x'), (u'', u'', u'dave')),
    ('str_rpartition', (u'a.b.c', u'.'), (u'a.b', u'.', u'c')),
    ('bytes_partition', (b'dave', b'x'), (b'dave', b'', b'')),
    ('bytes_partition', (b'a.b.c', b'.'), (b'a', b'.', b'b.c')),
])
def test_partitions(function, args, result):
    found = getattr(mitogen.core, function)(*args)
    assert found == result
    assert [type(v) for v in found] == [type(v) for v in result]


# ---- text and names

def test_to_text():
    for value, text in ((b'\xc3\xa9', u'\xe9'), (u'x', u'x'), (5, u'5'), (mitogen.core.Secret(u's'), u's')):
        found = mitogen.core.to_text(value)
        assert found == text
        assert type(found) is mitogen.core.UnicodeType


def test_b():
    assert mitogen.core.b('abc') == b'abc'
    assert type(mitogen.core.b('abc')) is bytes
    assert mitogen.core.b(u'\u20ac') == b'\xe2\x82\xac'
    assert mitogen.core.b(u'\xe9', 'latin-1') == b'\xe9'


def test_module_lineage():
    assert list(mitogen.core.module_lineage('a.b.c')) == ['a', 'a.b', 'a.b.c']
    assert list(mitogen.core.module_lineage('a')) == ['a']


def test_import_module_returns_the_leaf():
    assert mitogen.core.import_module('os.path') is os.path
    assert mitogen.core.import_module('email.utils').__name__ == 'email.utils'


def test_now_never_runs_backwards():
    times = [mitogen.core.now() for _ in range(1000)]
    assert times == sorted(times)


def test_constants():
    names = {
        'GET_MODULE': 100, 'CALL_FUNCTION': 101, 'FORWARD_LOG': 102, 'ADD_ROUTE': 103, 'DEL_ROUTE': 104,
        'ALLOCATE_ID': 105, 'SHUTDOWN': 106, 'LOAD_MODULE': 107, 'FORWARD_MODULE': 108, 'DETACHING': 109,
        'CALL_SERVICE': 110, 'STUB_CALL_SERVICE': 111, 'GET_RESOURCE': 112, 'LOAD_RESOURCE': 113, 'IS_DEAD': 999,
        'CHUNK_SIZE': 131072,
    }
    assert dict((name, getattr(mitogen.core, name)) for name in names) == names


def test_compatibility_names():
    core = mitogen.core
    assert core.BytesType is bytes
    assert core.UnicodeType is str
    assert set(core.AnyTextType) == set((bytes, str))
    assert isinstance(core.FsPathTypes, tuple)
    assert isinstance(core.integer_types, tuple)
    assert core.PY3 is True
    assert core.PY24 is False
    assert isinstance(core.IS_WSL, bool)
    assert core.ModuleNotFoundError is ModuleNotFoundError
    assert core.BaseException is BaseException
    assert core.select is select
    assert core.mitogen is __import__('mitogen')
    assert core.thread.get_ident() == __import__('threading').get_ident()
    assert core.threading__current_thread().name == core.threading__thread_name(core.threading__current_thread())
    assert core.LOGGERS == ('', 'mitogen', 'mitogen.io')
    assert core.LOG.name == 'mitogen'
    assert core.IOLOG.name == 'mitogen.io'
    assert bytes(core.BufferType(b'abc', 1)) == b'bc'
    assert core.next(iter([1])) == 1
    assert list(core.iteritems({1: 2})) == [(1, 2)]
    assert core._profile_hook.__name__ == '_profile_hook'


def test_dictionaries_are_walked_by_functions():
    d = {1: 2}
    assert list(mitogen.core.iterkeys(d)) == [1]
    assert list(mitogen.core.itervalues(d)) == [2]
    assert list(mitogen.core.iteritems(d)) == [(1, 2)]
