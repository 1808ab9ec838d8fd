"""
The importer tells of modules that came from the parent what loaders tell.

The package resource_pkg is in tests/data/importer: on the path of this process, and on no child's.
"""

import pytest

from mitogen.core import CallError

LOADER = "__import__('resource_pkg').__loader__"

pytestmark = pytest.mark.usefixtures('importer_data')


@pytest.fixture
def child(router):
    return router.local()


def test_a_loader_tells_packages_from_modules(child):
    assert child.call(eval, LOADER + ".is_package('resource_pkg')") is True
    with pytest.raises(CallError) as e:
        child.call(eval, LOADER + ".is_package('no_such_module')")
    assert 'ImportError' in str(e.value)


def test_a_loader_has_the_code_of_a_module(child):
    code = LOADER + ".get_code('resource_pkg')"
    assert child.call(eval, code + '.co_filename').startswith('master:/')
    assert child.call(eval, code + '.co_name') == '<module>'


def test_data_of_a_package_is_had_by_its_path(child):
    get = "__import__('pkgutil').get_data('resource_pkg', %r)"
    assert child.call(eval, get % 'text.txt') == b'text\n'
    assert child.call(eval, get % 'sub_dir/empty') == b''
    with pytest.raises(CallError) as e:
        child.call(eval, get % 'no_such_file')
    assert 'FileNotFoundError' in str(e.value)


def test_data_is_not_had_by_a_path_that_leads_elsewhere(child):
    for path in '/etc/hostname', 'master:/etc/hostname', 'x':
        with pytest.raises(CallError) as e:
            child.call(eval, LOADER + '.get_data(%r)' % path)
        assert 'FileNotFoundError' in str(e.value)
