"""
A program that was written for Mitogen finds every name it knows, or docs/interface.rst says why
not. That table also names a test for each; here it is kept true, against a record of the names
(data/interface.txt) and against our package. See interface.py for how the record is made.
"""

import ast
import importlib
import inspect
import logging
import os
import re
import subprocess
import sys
import unittest
from unittest import mock

import pytest

import interface
import places
import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.service
from mitogen.core import Context, Latch, Message, Receiver, Sender

TABLE = os.path.join(places.ROOT, 'docs', 'interface.rst')
RECORD = os.path.join(places.DATA, 'interface.txt')

ROW = re.compile(r'^``([A-Za-z_0-9.]+)`` +(.+)$')
TEST = re.compile(r'``(test_\w+\.py)::(test_\w+)``')


class Row(object):
    """
    One row of the table, about one name.
    """

    def __init__(self, text):
        self.text = text
        self.absent = text.startswith('absent: ')
        self.ours = text.startswith('ours')
        self.differs = 'differs: ' in text
        self.native = 'compiled core only' in text
        self.tests = TEST.findall(text)


def read_table():
    rows = {}
    module = None
    with open(TABLE) as fp:
        lines = fp.read().split('\n')
    for line, below in zip(lines, lines[1:] + ['']):
        if line and below == '-' * len(line):
            module = line
        match = ROW.match(line)
        if match:
            key = module, match.group(1)
            assert key not in rows, 'twice in the table: %s' % (key,)
            rows[key] = Row(match.group(2))
    return rows


def read_record(text):
    rows = {}
    for line in text.splitlines():
        module, name, kind, detail = (line.split('\t') + [''])[:4]
        rows[module, name] = kind, detail
    return rows


with open(RECORD) as fp:
    recorded = read_record(fp.read())
table = read_table()
here = interface.record()


def find(module, name):
    """
    Return what a dotted name means in our package, or raise AttributeError. Attributes that only
    objects have are looked for in objects.
    """
    value = importlib.import_module(module)
    parts = name.split('.')
    for i, part in enumerate(parts):
        if isinstance(value, type):
            # Not through the descriptor: the class's own attribute counts.
            for base in value.__mro__:
                if part in vars(base):
                    value = vars(base)[part]
                    break
            else:
                if any((base.__module__, '%s.%s' % (base.__name__, part)) in here for base in value.__mro__):
                    return NotImplemented
                raise AttributeError(name)
        else:
            value = getattr(value, part)
    return value


def present():
    native = mitogen.core.CORE == 'native'
    return sorted(key for key, row in table.items() if not row.absent and (native or not row.native))


def compared():
    """
    Return the keys of names that are in both and are said to be the same.
    """
    return sorted(key for key in recorded if key in table and not table[key].absent and not table[key].differs)


# ---- the table

def test_the_table_lists_every_recorded_name():
    assert sorted(set(recorded) - set(table)) == []


def test_what_is_not_recorded_is_marked_as_ours():
    assert sorted(key for key, row in table.items() if row.ours != (key not in recorded)) == []


def test_every_public_name_of_ours_is_in_the_table():
    missing = []
    for module, name in sorted(here):
        cls, _, attribute = name.rpartition('.')
        owners = [(module, cls)]
        if cls:
            owners += [(base.__module__, base.__name__)
                       for base in getattr(importlib.import_module(module), cls).__mro__]
        if not any((owner, ('%s.%s' % (c, attribute)).lstrip('.')) in table for owner, c in owners):
            missing.append((module, name))
    assert missing == []


def test_every_row_names_a_test_or_says_why_not():
    assert sorted(key for key, row in table.items() if not row.absent and not row.tests) == []
    assert sorted(key for key, row in table.items() if row.absent and len(row.text) < len('absent: ') + 10) == []


def test_every_test_named_exists():
    known = {}
    missing = set()
    for row in table.values():
        for filename, test in row.tests:
            if filename not in known:
                with open(places.test_file(filename)) as fp:
                    known[filename] = set(
                        node.name for node in ast.parse(fp.read()).body if isinstance(node, ast.FunctionDef))
            if test not in known[filename]:
                missing.add((filename, test))
    assert sorted(missing) == []


# ---- our package

def test_every_name_that_is_not_absent_exists():
    missing = []
    for key in present():
        try:
            find(*key)
        except AttributeError:
            missing.append(key)
    assert missing == []


def test_what_is_absent_is_absent():
    found = []
    for key, row in sorted(table.items()):
        if row.absent:
            try:
                find(*key)
            except AttributeError:
                continue
            found.append(key)
    assert found == []


def test_names_are_of_the_same_kind():
    wrong = []
    for key in compared():
        value = find(*key)
        if value is not NotImplemented:
            kind = interface.kind_of(value)
            wanted = recorded[key][0].replace('attribute', 'data')
            if kind != wanted and not (recorded[key][0] == 'attribute' and isinstance(value, property)):
                wrong.append((key, wanted, kind))
    assert wrong == []


def parameters(text):
    """
    Return a list of (name, default as text or None) for a recorded signature.
    """
    words = [] if text == 'nothing' else [word.rsplit(' ', 1) for word in text.split(' | ')]
    words = [word for word, _ in sorted(words, key=lambda pair: int(pair[1]))]
    arguments = ast.parse('def f(%s): pass' % ', '.join(words)).body[0].args
    found = [[a.arg, None] for a in arguments.args]
    for pair, default in zip(reversed(found), reversed(arguments.defaults)):
        pair[1] = ast.unparse(default)
    found = [tuple(pair) for pair in found]
    for star, name in (('*', arguments.vararg), ('**', arguments.kwarg)):
        if name:
            found.append((star, None))
    return found


def test_functions_take_what_they_always_took():
    """
    A call that was right is still right: the same names in the same order with the same defaults.
    There may be more, behind them, with defaults.
    """
    wrong = []
    for key in compared():
        kind, wanted = recorded[key]
        value = find(*key)
        if kind not in ('function', 'class') or not wanted or value is NotImplemented:
            continue
        if kind == 'class':
            value = value.__init__
        found = interface.signature_of(value)
        if found and not is_compatible(parameters(wanted), parameters(found)):
            wrong.append((key, wanted, found))
    assert wrong == []


def is_compatible(wanted, found):
    stars = [name for name, _ in wanted if name.startswith('*')]
    names = [pair for pair in wanted if not pair[0].startswith('*')]
    found_names = [pair for pair in found if not pair[0].startswith('*')]
    found_stars = [name for name, _ in found if name.startswith('*')]
    if not set(stars) <= set(found_stars):
        return False
    for index, (name, default) in enumerate(names):
        if index >= len(found_names):
            # Passed on by name.
            return '**' in found_stars and all(d is not None for _, d in names[index:])
        found_name, found_default = found_names[index]
        if name != found_name or (default is not None and found_default is None):
            return False
        if default not in ('...', None) and default != found_default:
            return False
    return all(default is not None for _, default in found_names[len(names):])


def test_values_are_those_that_programs_know():
    wrong = []
    for key in compared():
        kind, wanted = recorded[key]
        if kind == 'data' and wanted:
            found = find(*key)
            if found is NotImplemented or hasattr(type(found), '__get__'):
                # That is an attribute of objects, which another test looks at.
                continue
            found = interface.value_of(found)
            if found != wanted:
                wrong.append((key, wanted, found))
    assert wrong == []


#: Options that work out their own value, whatever the default of their class.
CALCULATED = ('max_message_size', 'connect_deadline', 'remote_name', 'kubectl_args')


def test_options_default_to_what_programs_know():
    """
    Where a class of options has a default, an object that was told nothing has it.
    """
    wrong = []
    checked = 0
    for obj in interface.instances():
        cls = type(obj)
        if cls.__name__ != 'Options':
            continue
        given = dict(interface.METHODS)[cls.__module__.split('.')[-1]]
        for (module, name), (kind, wanted) in sorted(recorded.items()):
            attribute = name.split('.')[-1]
            if module != cls.__module__ or name != 'Options.' + attribute or kind != 'data' or not wanted:
                continue
            if attribute in given or table[module, name].differs or attribute in CALCULATED:
                continue
            checked += 1
            found = interface.value_of(getattr(obj, attribute))
            if found != wanted:
                wrong.append((module, attribute, wanted, found))
    assert wrong == []
    assert checked > 30


def test_each_module_has_its_logger():
    for module, name in compared():
        value = find(module, name)
        if name in ('LOG', 'IOLOG'):
            wanted = 'mitogen' if module in ('mitogen.core', 'mitogen.master') else module
            assert value.name == ('mitogen.io' if name == 'IOLOG' else wanted), (module, name)
            for method in ('debug', 'info', 'warning', 'error', 'exception', 'log', 'isEnabledFor', 'addHandler'):
                assert callable(getattr(value, method)), (module, name, method)


@pytest.mark.parametrize('log', [mitogen.core.LOG, mitogen.core.IOLOG, mitogen.service.LOG, mitogen.parent.LOG])
def test_what_a_program_sets_of_a_logger_is_set(log):
    real = logging.getLogger(log.name)
    assert isinstance(log, logging.Logger)
    for name, value in (('propagate', False), ('disabled', True), ('level', 35), ('handlers', [logging.NullHandler()]),
                        ('filters', [len]), ('parent', logging.getLogger('another'))):
        before = getattr(real, name)
        setattr(log, name, value)
        try:
            assert getattr(real, name) == getattr(log, name) == value != before
        finally:
            setattr(real, name, before)
        with mock.patch.object(log, name, value):
            assert getattr(real, name) == value
        assert getattr(real, name) == getattr(log, name) == before
    with mock.patch.object(log, 'error') as error:
        log.error('%s', 1)
    error.assert_called_once_with('%s', 1)
    with unittest.TestCase().assertLogs(log, 'INFO') as seen:
        log.info('something')
    assert seen.output == ['INFO:%s:something' % log.name]


def test_texts_for_people_are_texts():
    count = 0
    for module, name in present():
        value = find(module, name)
        if name.endswith(('_msg', '_MSG', '.fmt', '_hint')) and not inspect.isroutine(value):
            assert value is None or (isinstance(value, (str, property)) and value), (module, name)
            count += 1
    assert count > 50


def test_classes_have_the_bases_that_programs_ask_for():
    core, parent, master = mitogen.core, mitogen.parent, mitogen.master
    for cls, base in (
        (parent.Router, core.Router), (master.Router, parent.Router), (master.Broker, core.Broker),
        (parent.Context, core.Context), (parent.MitogenProtocol, core.MitogenProtocol),
        (parent.PollPoller, core.Poller), (parent.EpollPoller, core.Poller), (parent.KqueuePoller, core.Poller),
        (parent.PREFERRED_POLLER, core.Poller), (parent.POLLER_LIGHTWEIGHT, core.Poller),
        (parent.RegexProtocol, core.DelimitedProtocol), (parent.LogProtocol, core.DelimitedProtocol),
        (core.IoLoggerProtocol, core.DelimitedProtocol), (core.DelimitedProtocol, core.Protocol),
        (core.MitogenProtocol, core.Protocol), (core.Waker, core.Protocol),
        (core.Channel, core.Sender), (core.Channel, core.Receiver),
        (core.LatchError, core.Error), (core.ChannelError, core.Error), (core.StreamError, core.Error),
        (core.TimeoutError, core.Error), (core.CallError, core.Error),
        (core.Blob, bytes), (core.Secret, str), (core.Kwargs, dict),
        (parent.EofError, core.StreamError), (parent.CancelledError, core.StreamError),
        (core.ModuleUnsuitableError, ModuleNotFoundError), (core.ModuleDeniedByBlocksError, ModuleNotFoundError),
        (core.ModuleDeniedByOverridesError, ModuleNotFoundError),
    ):
        assert issubclass(cls, base), (cls, base)
    for module, base in (
        ('fakessh', core.Error), ('fork', core.StreamError), ('select', core.Error), ('setns', core.StreamError),
        ('unix', core.Error), ('service', Exception),
    ):
        assert issubclass(importlib.import_module('mitogen.' + module).Error, base), module
    for module in 'doas', 'ssh', 'su', 'sudo':
        assert issubclass(importlib.import_module('mitogen.' + module).PasswordError, core.StreamError), module
    for name, _ in interface.METHODS:
        module = importlib.import_module('mitogen.' + name)
        assert issubclass(module.Connection, parent.Connection), name
        assert issubclass(module.Options, parent.Options), name
        assert module.Connection.options_class is module.Options, name
    handler = core.LogHandler(None)
    assert isinstance(handler, logging.Handler)
    assert handler.lock is not None and handler.level == 0
    assert (handler.filters, handler.formatter) == ([], None)


def test_lists_that_programs_extend_are_lists():
    for value in (mitogen.core.Importer.ALWAYS_BLACKLIST, mitogen.core.Importer.MITOGEN_PKG_CONTENT,
                  mitogen.parent.RegexProtocol.PATTERNS, mitogen.parent.RegexProtocol.PARTIAL_PATTERNS,
                  mitogen.master.ModuleFinder.get_module_methods):
        assert type(value) is list
    assert type(mitogen.master.SPECIAL_FILE_PATHS) is set
    assert type(mitogen.core.ImportPolicy().overrides) is type(mitogen.core.ImportPolicy().blocks) is set


def test_compiled_methods_take_keywords(router):
    """
    They do not tell their parameters, so they are called with them.
    """
    latch = Latch()
    latch.put(obj=1)
    assert latch.get(timeout=1, block=False) == 1
    receiver = Receiver(router=router, handle=None, persist=True, respondent=None, policy=None, overwrite=False)
    Sender(context=router.myself(), dst_handle=receiver.handle).send(data=b'x', enc=Message.ENC_BIN)
    assert receiver.get(timeout=60, block=True, throw_dead=True).data == b'x'
    handle = router.add_handler(
        fn=len, handle=None, persist=True, policy=None, respondent=None, overwrite=False)
    router.del_handler(handle=handle)
    msg = Message.pickled(1, handle=receiver.handle)
    assert msg.unpickle(throw=True, throw_dead=True, find_class=None) == 1
    assert list(msg.unpickle_iter(throw=True, throw_dead=True, find_class=mitogen.core.find_deny)) == [1]
    router.myself().send(msg=msg)
    assert receiver.get(10, True, True).unpickle(True, True, None) == 1
    msg.dst_id = 0
    router.route(msg=msg)
    assert receiver.get().unpickle() == 1
    answer = Context(router, 0).send_async(msg=Message(handle=receiver.handle), persist=False)
    receiver.get().reply(msg=5, router=router)
    assert answer.get().unpickle() == 5


@pytest.mark.parametrize('found, result', [
    ('a 0 | b=1 1', True), ('a 0 | b=1 1 | c=2 2', True), ('a 0 | b=1 1 | **rest 2', True), ('a 0 | **rest 1', True),
    ('b 0 | a=1 1', False), ('a 0 | b=2 1', False), ('a 0 | b 1', False), ('a 0 | c=1 1', False), ('a 0', False),
    ('a 0 | c=2 1 | b=1 2', False), ('nothing', False),
])
def test_a_change_of_parameters_is_noticed(found, result):
    assert is_compatible(parameters('a 0 | b=1 1'), parameters(found)) is result


if os.environ.get('MITOGEN_UPSTREAM'):
    def test_the_record_is_what_the_other_package_has():
        """
        MITOGEN_UPSTREAM is the path of an interpreter for which upstream's package is installed.
        """
        env = dict(os.environ)
        env.pop('PYTHONPATH', None)
        text = subprocess.check_output(
            [os.environ['MITOGEN_UPSTREAM'], os.path.join(places.LIB, 'interface.py')], env=env, cwd='/').decode()
        assert read_record(text) == recorded
