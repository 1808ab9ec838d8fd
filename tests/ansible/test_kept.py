"""
Texts that daemons keep from run to run, and the work that is done once for all tasks.
"""

import base64
import collections
import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import time
import types
import zipfile

import pytest

import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen._shrink
import mitogen.ansible.target
from mitogen.ansible import importing, kept, payload, waiting, zygote

import testlib

pytestmark = pytest.mark.once


@contextlib.contextmanager
def a_run(folder, python):
    """
    Yield (Kept, target) of a daemon whose home is that folder, and keep what it has made.
    """
    router = mitogen.master.Router()
    texts = kept.Kept(folder)
    try:
        texts.load(router)
        yield texts, mitogen.ansible.target.Targets(router).get(('container', ('env',), (python,), 60.0))
        # The last of an answer may be sent after the first call has returned.
        testlib.wait_for(lambda: router.responder._shipments._kept, 60)
    finally:
        router.broker.shutdown()
        router.broker.join()
        texts.save(router)


def forbidden(*args, **kwargs):
    raise AssertionError('this was made before')


def test_a_second_daemon_sends_what_the_first_one_has_made(tmp_path, monkeypatch):
    folder, python = str(tmp_path / 'mitogen'), tmp_path / 'python'
    # Which does not find the package that is installed here: nothing would be sent.
    python.write_text('#!/bin/sh\nexec "%s" -S "$@"\n' % (sys.executable,))
    python.chmod(0o755)
    with a_run(folder, str(python)) as (texts, target):
        assert texts.before == set()
        assert target.fragment(('remove', '/no/such/ansible-tmp-1')) is None
    name, = os.listdir(folder)
    path = os.path.join(folder, name)
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in (folder, path)] == [0o700, 0o600]

    monkeypatch.setattr(mitogen._shrink, 'shrink_source', forbidden)
    with a_run(folder, str(python)) as (texts, target):
        assert texts.before and texts.before <= set(target.router.responder._shipments._kept)
        assert target.fragment(('remove', '/no/such/ansible-tmp-1')) is None


@pytest.mark.parametrize('harm', [
    lambda path: os.chmod(path, 0o622),
    lambda path: path.write_bytes(b'garbage'),
    lambda path: path.write_bytes(path.read_bytes()[:1000]),
    lambda path: path.write_bytes(path.read_bytes().replace(b'hub.py', b'bub.py')),
], ids=['others may write', 'garbage', 'cut', 'another file'])
def test_what_cannot_be_trusted_is_not_used(tmp_path, harm):
    router = types.SimpleNamespace(
        responder=types.SimpleNamespace(_shipments=types.SimpleNamespace(_kept=collections.OrderedDict())))
    first = kept.Kept(str(tmp_path))
    first.before = set()
    first.answers['key'] = []
    first.save(router)
    path, = tmp_path.iterdir()
    assert kept.read(str(path), first.stamp) == {'key': []}
    harm(path)
    second = kept.Kept(str(tmp_path))
    second.load(router)
    assert second.answers == {}


def test_texts_of_an_archive_travel_as_they_stand_there(tmp_path):
    written = io.BytesIO()
    with zipfile.ZipFile(written, 'w') as archive:
        for name, kind in ('a.py', zipfile.ZIP_DEFLATED), ('b/__init__.py', zipfile.ZIP_STORED):
            archive.writestr(name, 'text of %s\n' % (name,) * 50, kind)
    members, texts = payload.unpack(base64.b64encode(written.getvalue()))
    assert [name for name, _ in members] == ['a.py', 'b/__init__.py']
    assert sum(map(len, texts.values())) < 200
    found = importing.Payload(types.SimpleNamespace(texts=texts, codes={}), 'a', members)
    assert [found.text(name) for name in ('a', 'b')] == [b'text of a.py\n' * 50, b'text of b/__init__.py\n' * 50]
    found.write(str(tmp_path))
    with zipfile.ZipFile(found.path) as archive:
        assert archive.read('a.py') == b'text of a.py\n' * 50


#: As releases of Ansible write it.
WRAPPERS = [
    'def _ansiballz_main(): pass\nif __name__ == "__main__":\n    _ansiballz_main(\nansible_module=\'m\',\n'
    'params=%(params)r,\nzip_data=%(archive)r,\nprofile=\'legacy\',\n)\n',
    "def _ansiballz_main():\n    ANSIBALLZ_PARAMS = %(params)r\n    ZIPDATA = %(archive)r\n"
    "    basic._ANSIBLE_ARGS = json_params\n    runpy.run_module(mod_name='ansible.modules.m', "
    "init_globals=dict(_module_fqn='ansible.modules.m', _modlib_path=modlib_path), run_name='__main__', alter_sys=True)\n",
]


@pytest.mark.parametrize('wrapper', WRAPPERS, ids=['new', 'old'])
@pytest.mark.parametrize('word', ['%s', 'zip_data="%s"', "zip_data='%s'", 'ZIPDATA = """%s"""', "ZIPDATA = '%s'"])
def test_an_argument_that_looks_like_an_archive_is_none(wrapper, word):
    archive = base64.b64encode(b'PK\x03\x04' + b'x' * 3000).decode()
    params = json.dumps({'ANSIBLE_MODULE_ARGS': {'data': word % (archive[:-4] + 'AAAA',)}})
    found = payload.take_apart((wrapper % {'params': params, 'archive': archive}).encode())
    assert found.archive.decode() == archive
    assert (found.call.get('params') or found.call['arguments']['json_params']).decode() == params


class Event(object):
    """
    Notes how long somebody would wait for it.
    """

    def __init__(self):
        self.waits, self.is_set = [], False

    def set(self):
        self.is_set = True

    def clear(self):
        self.is_set = False

    def wait(self, seconds):
        self.waits.append(round(seconds, 4))
        return self.is_set


def test_a_strategy_waits_longer_and_longer_for_its_next_result(monkeypatch):
    strategy = types.ModuleType('a_strategy')
    strategy.time, strategy.deque = time, collections.deque
    free = types.ModuleType('a_strategy.free')
    monkeypatch.setitem(sys.modules, 'a_strategy.free', free)
    waiting.install(strategy)
    waiting.install(strategy)
    waiter = strategy.time
    assert free.time is waiter and waiter.time is time.time
    waiter.arrived = event = Event()
    results = strategy.deque()
    for _ in range(7):
        waiter.sleep(0.001)
    results.append('a result')
    waiter.sleep(0.001)
    assert (list(results), event.is_set) == (['a result'], False)
    waiter.sleep(0.001)
    assert event.waits == [0.001, 0.002, 0.004, 0.008, 0.016, 0.02, 0.02, 0.02, 0.001]


def prepared(umask, other=None):
    """
    Return a function like that which Ansible has called before an exec, or another one.
    """
    def preexec():
        if umask:
            os.umask(umask)

    def old(self=testlib):
        def preexec():
            self._restore_signal_handlers()
            if umask:
                os.umask(umask)
        return preexec

    def strange():
        def preexec():
            if not umask:
                os.setsid()
        return preexec

    return {None: preexec, 'old': old(), 'strange': strange()}[other]


@pytest.mark.parametrize('func, is_kept', [
    (prepared(None), False), (prepared(0o77), True), (prepared(None, 'old'), False), (prepared(0o77, 'old'), True),
    (prepared(None, 'strange'), True), (len, True), (lambda: None, True)],
    ids=['nothing to do', 'umask', 'old', 'old with umask', 'strange', 'builtin', 'another'])
def test_a_function_before_an_exec_is_called_if_it_does_something(monkeypatch, func, is_kept):
    seen = []
    monkeypatch.setattr(subprocess, 'Popen', lambda *args, **options: seen.append((args, options)))
    zygote.lightened_subprocess().Popen(['x'], preexec_fn=func, env=None)
    assert seen == [((['x'],), {'preexec_fn': func if is_kept else None, 'env': None})]
