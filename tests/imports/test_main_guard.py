"""
The main module of a program: children get it without its guarded part, and one without a guard is
an error.
"""

import logging
import os

import pytest
import places
import testlib
from responders import ask, new_responder, run_program, Stream

from mitogen.master import ModuleResponder


# The packages in tests/data/importer can be imported.
pytestmark = pytest.mark.usefixtures('importer_data')


@pytest.fixture
def stream():
    return Stream()


@pytest.fixture
def responder(stream):
    return new_responder(stream)


GUARDED = b'import x\n\ndef f():\n    pass\n\n'


@pytest.mark.parametrize('guard', [
    b"if __name__ == '__main__':\n    f()\n",
    b'if  __name__=="__main__" :\n    f()\nelse:\n    g()\n',
    b"if (__name__ ==\n        '__main__'):\n    f()\n",
])
def test_the_guarded_part_is_cut_off(responder, guard):
    assert responder.neutralize_main('/m.py', GUARDED + guard) == GUARDED


@pytest.mark.parametrize('source', [
    b"  if __name__ == '__main__':\n    f()\n",
    b"if '__main__' == __name__:\n    f()\n",
    b"if __name__ in ('__main__',):\n    f()\n",
    b'f()\n',
    b"TEXT = '''\nif __name__ == '__main__':\n    f()\n'''\nf()\n",
    b"# With mitogen.main() it would be different.\nf()\n",
    b"print('mitogen.main()')\n",
])
def test_what_is_no_guard(responder, source):
    with testlib.LogCapture('mitogen.responder') as logs:
        with pytest.raises(ImportError):
            responder.neutralize_main('/m.py', GUARDED + source)
        assert [r.getMessage() for r in logs.records if r.levelno == logging.ERROR] == [
            responder.main_guard_msg % ('/m.py',)]


@pytest.mark.parametrize('before', [
    b"TEXT = '''\nif __name__ == '__main__':\n    f()\n'''\n",
    b"# -*- coding: latin-1 -*-\nTEXT = '\xe4\xa0'\n",
    b"TEXT = 1\r\n",
    b"\xef\xbb\xbfTEXT = '\xc3\xa4\x0c'\n\x0c\n",
], ids=['guard in a string', 'latin-1', 'lines of DOS', 'UTF-8 with its mark'])
def test_what_stands_before_the_guard_stays(responder, before):
    source = before + GUARDED
    assert responder.neutralize_main('/m.py', source + b"if __name__ == '__main__':\n    f()\n") == source


def test_each_attempt_to_import_an_unguarded_program_is_told(responder):
    responder.add_source_override('__main__', '/m.py', b'f()\n', False)
    with testlib.LogCapture('mitogen.responder') as logs:
        for _ in range(2):
            ask(responder, '__main__')
        assert len(logs.find(responder.main_guard_msg % ('/m.py',), level=logging.ERROR)) == 2
    assert responder.router.tuples() == [('__main__', None, None, None, ())] * 2
    assert (responder.bad_load_module_count, responder.good_load_module_count) == (2, 0)


def test_the_decorator_is_a_guard(responder):
    source = GUARDED + b'@mitogen.main(log_level="DEBUG")\ndef main(router):\n    pass\n'
    assert responder.neutralize_main('/m.py', source) == source


@pytest.mark.parametrize('name', ['main_guarded.py', 'main_decorated.py'])
def test_a_program_calls_its_own_function(name):
    status, out, err = run_program(name)
    assert (status, out) == (0, "('__main__', 1)\n"), err


def test_a_program_without_a_guard_is_told():
    status, out, err = run_program('main_unguarded.py')
    path = os.path.join(places.IMPORTER_DATA, 'main_unguarded.py')
    assert (status, out) == (1, '')
    assert ModuleResponder.main_guard_msg % (path,) in err


def test_a_program_that_forgets_to_shut_down_ends():
    status, out, err = run_program('main_forgets_shutdown.py')
    assert (status, err) == (0, '')
    assert not testlib.is_running(int(out))
