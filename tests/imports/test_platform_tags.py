"""
Whether a wheel runs on what a child says it is.
"""

import pytest

import mitogen._freight
from mitogen.master import _Platform

GLIBC = 'cp311 cp311 linux_x86_64 glibc 2.36 a70d0d0a'
MUSL = 'cp311 cp311 linux_x86_64 musl 1.2.3 a70d0d0a'
FREE = 'cp313 cp313t linux_x86_64 glibc 2.36 a70d0d0a'
ARM = 'cp311 cp311 linux_aarch64 glibc 2.36 a70d0d0a'
MAC = 'cp311 cp311 macosx_11_0_arm64 macos 13.2 a70d0d0a'
PYPY = 'pp310 pypy310_pp73 linux_x86_64 glibc 2.36 a70d0d0a'


@pytest.mark.parametrize('child,tag,why', [
    (GLIBC, 'py3-none-any', None),
    (GLIBC, 'py2.py3-none-any', None),
    (PYPY, 'py3-none-any', None),
    (GLIBC, 'cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64', None),
    (GLIBC, 'cp311-cp311-manylinux1_x86_64', None),
    (GLIBC, 'cp37-abi3-manylinux_2_28_x86_64', None),
    (GLIBC, 'cp311-cp311-linux_x86_64', None),
    (GLIBC, 'py3-none-manylinux2010_x86_64', None),
    (MUSL, 'cp311-cp311-musllinux_1_1_x86_64', None),
    (FREE, 'cp313-cp313t-manylinux_2_17_x86_64', None),
    (ARM, 'cp311-cp311-manylinux_2_17_aarch64', None),
    (MAC, 'cp311-cp311-macosx_12_0_arm64', None),
    (MAC, 'cp311-cp311-macosx_10_9_universal2', None),
    (PYPY, 'pp310-pypy310_pp73-manylinux_2_17_x86_64', None),
    (GLIBC, 'cp311-cp311-manylinux_2_39_x86_64', 'C library'),
    (GLIBC, 'cp311-cp311-musllinux_1_1_x86_64', 'C library'),
    (MUSL, 'cp311-cp311-manylinux_2_17_x86_64', 'C library'),
    (MUSL, 'cp311-cp311-linux_x86_64', 'C library'),
    (GLIBC, 'cp311-cp311-manylinux_2_17_aarch64', 'platform'),
    (ARM, 'cp311-cp311-linux_x86_64', 'platform'),
    (MAC, 'cp311-cp311-macosx_14_0_arm64', 'platform'),
    (MAC, 'cp311-cp311-macosx_11_0_x86_64', 'platform'),
    (GLIBC, 'cp311-cp311-win_amd64', 'platform'),
    (GLIBC, 'cp312-abi3-manylinux_2_17_x86_64', 'ABI'),
    (GLIBC, 'cp310-cp310-manylinux_2_17_x86_64', 'ABI'),
    (FREE, 'cp313-cp313-manylinux_2_17_x86_64', 'ABI'),
    (FREE, 'cp37-abi3-manylinux_2_17_x86_64', 'ABI'),
    (PYPY, 'cp310-cp310-manylinux_2_17_x86_64', 'ABI'),
    (GLIBC, 'cp310-cp310-manylinux_2_17_aarch64', 'platform'),
])
def test_a_tag_fits_or_the_reason_is_told(child, tag, why):
    found = _Platform(child).why_not([tag], _Platform(GLIBC))
    if why is None:
        assert found is None
    else:
        assert found.startswith('the %s: it is for %s, and the child is ' % (why, tag))


def test_one_tag_of_several_is_enough():
    assert _Platform(GLIBC).why_not(['cp39-cp39-win32', 'cp311-cp311-linux_x86_64'], _Platform(GLIBC)) is None
    assert _Platform(GLIBC).why_not([], _Platform(GLIBC)).startswith('the platform: it is for nothing known')


@pytest.mark.parametrize('text', ['', 'x', 'a b c d e', 'a b c d e f\n', 'a b c d e f g', 'a/b b c d e f'])
def test_what_is_no_description_is_refused(text):
    with pytest.raises(ValueError):
        _Platform(text)


def test_this_interpreter_describes_itself():
    own = _Platform(mitogen._freight.describe())
    assert own.why_not(['%s-%s-%s' % (own.python, own.abi, own.platform)], own) is None
