"""
mitogen.utils: conveniences for programs.
"""

import io
import logging
import os
import re
import subprocess
import sys

import pytest

import mitogen.core
import mitogen.master
import mitogen.utils
from mitogen.utils import cast


@pytest.fixture
def loggers(monkeypatch):
    """
    Afterwards the root logger's handlers and all levels are what they were.
    """
    monkeypatch.delenv('MITOGEN_LOG_LEVEL', raising=False)
    found = [logging.getLogger(name) for name in mitogen.core.LOGGERS]
    levels = [logger.level for logger in found]
    handlers = found[0].handlers[:]
    yield found
    found[0].handlers[:] = handlers
    for logger, level in zip(found, levels):
        logger.setLevel(level)


def levels_of(loggers):
    return [logger.level for logger in loggers]


# ---- routers

def test_run_with_router_returns_and_ends_the_broker():
    routers = []

    def func(router, a, b=None):
        routers.append(router)
        assert isinstance(router, mitogen.master.Router)
        assert router.broker._thread.is_alive()
        return a, b

    assert mitogen.utils.run_with_router(func, 1, b=2) == (1, 2)
    assert not routers[0].broker._thread.is_alive()


def test_run_with_router_ends_the_broker_after_an_exception():
    routers = []

    def func(router):
        routers.append(router)
        raise ValueError('x')

    with pytest.raises(ValueError):
        mitogen.utils.run_with_router(func)
    assert not routers[0].broker._thread.is_alive()


def test_with_router_keeps_name_and_docstring():
    @mitogen.utils.with_router
    def func(router, value):
        """doc"""
        return router.broker, value

    assert (func.__name__, func.__doc__) == ('func', 'doc')
    broker, value = func(5)
    assert value == 5
    assert not broker._thread.is_alive()


# ---- logging

@pytest.mark.parametrize('name, expected', [
    ('IO', (10, 10, 10)),
    ('DEBUG', (10, 10, 20)),
    ('INFO', (20, 20, 20)),
    ('ERROR', (40, 40, 40)),
    ('NONSENSE', (20, 20, 20)),
])
def test_levels_by_name(name, expected):
    assert mitogen.utils._levelname_to_levels(name) == expected


def test_levels_of_an_unknown_name_may_be_chosen():
    assert mitogen.utils._levelname_to_levels('NONSENSE', 30) == (30, 30, 30)


@pytest.mark.parametrize('value, expected', [('io', [10, 10, 10]), ('debug', [10, 10, 20]), (None, [30, 30, 30])])
def test_levels_from_the_environment(loggers, monkeypatch, value, expected):
    if value:
        monkeypatch.setenv('MITOGEN_LOG_LEVEL', value)
    mitogen.utils.log_levels_configure('warning')
    assert levels_of(loggers) == expected


def test_the_format_of_a_line():
    record = logging.LogRecord('some.name', logging.WARNING, 'p', 1, 'text %d', (5,), None)
    line = mitogen.utils.log_get_formatter().format(record)
    assert re.match(r'^\d\d:\d\d:\d\d\.\d{6} W some\.name: text 5$', line)


def test_logging_to_a_file(loggers, tmp_path):
    path = tmp_path / 'log'
    mitogen.utils.log_to_file(str(path), level='DEBUG')
    handler = logging.getLogger().handlers[0]
    assert handler.is_mitogen
    assert levels_of(loggers) == [10, 10, 20]
    assert not os.get_inheritable(handler.stream.fileno())
    logging.getLogger('x').debug('hello')
    assert path.read_text().endswith(' D x: hello\n')

    # The next call replaces the handler.
    before = len(logging.getLogger().handlers)
    mitogen.utils.log_to_file()
    assert len(logging.getLogger().handlers) == before
    assert logging.getLogger().handlers[0].stream is sys.stderr
    handler.stream.close()


def test_the_environment_wins_over_the_argument(loggers, monkeypatch):
    monkeypatch.setenv('MITOGEN_LOG_LEVEL', 'error')
    mitogen.utils.log_to_file(level='DEBUG')
    assert levels_of(loggers) == [40, 40, 40]


# ---- the interpreter

def test_setup_gil():
    before = sys.getswitchinterval()
    try:
        mitogen.utils.setup_gil()
        assert sys.getswitchinterval() == 10
    finally:
        sys.setswitchinterval(before)


def test_disable_site_packages(monkeypatch):
    monkeypatch.setattr(sys, 'path', ['/a', '/b/site-packages', '/Extras/c', '/d'])
    path = sys.path
    mitogen.utils.disable_site_packages()
    assert sys.path is path
    assert path == ['/a', '/d']


# ---- cast

class Dict(dict):
    pass


class List(list):
    pass


class Tuple(tuple):
    pass


class Text(mitogen.core.UnicodeType):
    pass


class Bytes(mitogen.core.BytesType):
    pass


class StubbornText(mitogen.core.UnicodeType):
    def __str__(self):
        return self


class StubbornBytes(mitogen.core.BytesType):
    def __bytes__(self):
        return self


@pytest.mark.parametrize('value, expected', [
    (Dict({1: Dict()}), {1: {}}),
    (Dict({Text(u'a'): Tuple((1,))}), {u'a': [1]}),
    (List((1, List())), [1, []]),
    ((1, 2), [1, 2]),
    (Tuple((1,)), [1]),
    (Text(u'x'), u'x'),
    (Bytes(b'x'), b'x'),
    (u'x', u'x'),
    (b'x', b'x'),
])
def test_cast(value, expected):
    def types(obj):
        if isinstance(obj, dict):
            return type(obj), [(types(k), types(v)) for k, v in obj.items()]
        if isinstance(obj, (list, tuple)):
            return type(obj), [types(v) for v in obj]
        return type(obj)

    result = cast(value)
    assert result == expected
    assert types(result) == types(expected)


class Int(int):
    pass


@pytest.mark.parametrize('value', [
    0, 1 << 80, Int(5), 1.5, True, None, mitogen.core.Blob(b'x'), mitogen.core.Secret(u'x'),
    mitogen.core.CallError(u'x'),
])
def test_cast_leaves_these_alone(value):
    assert cast(value) is value


def test_cast_leaves_contexts_alone(router):
    context = router.myself()
    assert cast([context])[0] is context


@pytest.mark.parametrize('value', [
    set(), complex(1), object(), [set()], {'x': object()}, StubbornText(u'x'), StubbornBytes(b'x'),
])
def test_cast_refuses_the_rest(value):
    with pytest.raises(TypeError):
        cast(value)


def test_passthrough():
    names = [cls.__name__ for cls in mitogen.utils.PASSTHROUGH]
    assert names == ['int', 'float', 'bool', 'NoneType', 'Context', 'CallError', 'Blob', 'Secret']


def test_a_program_that_prints_its_log(tmp_path):
    program = (
        'import logging, mitogen.utils\n'
        'mitogen.utils.log_to_file()\n'
        'logging.getLogger("z").info("seen")\n'
        'logging.getLogger("z").debug("unseen")\n'
    )
    env = dict(os.environ)
    env.pop('MITOGEN_LOG_LEVEL', None)
    env['PYTHONPATH'] = os.path.dirname(os.path.dirname(mitogen.utils.__file__))
    proc = subprocess.Popen([sys.executable, '-c', program], stderr=subprocess.PIPE, env=env, cwd=str(tmp_path))
    text = io.TextIOWrapper(io.BytesIO(proc.communicate()[1])).read()
    assert text.endswith(' I z: seen\n')
    assert text.count('\n') == 1
