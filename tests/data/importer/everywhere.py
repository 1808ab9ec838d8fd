"""
A program that tries a little of everything a master does, on whichever Python runs it.
"""

from __future__ import print_function

import logging
import os
import sys

import finder_pkg.replaced_pkg
import finder_pkg.replaces_itself
import lonely
import mitogen.core
import mitogen.debug
import mitogen.master
import mitogen.os_fork
import mitogen.select
import mitogen.utils
import responder_child
import simple_pkg.a


class Records(logging.Handler):
    """
    Keeps every record.
    """
    def __init__(self):
        logging.Handler.__init__(self)
        self.records = []

    def emit(self, record):
        self.records.append(record)


class Text(mitogen.core.UnicodeType):
    pass


def try_select():
    latches = [mitogen.core.Latch() for _ in range(3)]
    select = mitogen.select.Select([latches[0], mitogen.select.Select(latches[1:])])
    order = [latches[2], latches[0], latches[1]]
    for latch in order:
        latch.put(latch)
    assert [event.source for event in select.iter_events()] == order
    try:
        select.get()
        assert False
    except mitogen.select.Error as e:
        assert str(e) == mitogen.select.Select.empty_msg
    with mitogen.select.Select(latches) as select:
        try:
            select.get(timeout=0.01)
            assert False
        except mitogen.core.TimeoutError:
            pass


def try_cast():
    blob = mitogen.core.Blob(b'x')
    assert mitogen.utils.cast({blob: (1, [u'y', b'z'])}) == {blob: [1, [u'y', b'z']]}
    assert type(mitogen.utils.cast(Text(u'x'))) is mitogen.core.UnicodeType


def try_finder():
    finder = mitogen.master.ModuleFinder()
    for name in 'finder_pkg.replaced_pkg', 'finder_pkg.replaces_itself', 'mitogen.core', 'latin_crlf':
        path, source, _ = finder.get_module_source(name)
        assert source and path.endswith('.py'), name
    assert finder.get_module_source('sys') == (None, None, None)
    assert finder.find_related('finder_pkg.relations') == [
        'finder_pkg', 'mitogen', 'mitogen.core', 'simple_pkg', 'simple_pkg.b']


def try_children(router):
    child = router.local(name=u'zed')
    assert child.call(simple_pkg.a.subtract_one_add_two, 4) == 5
    assert child.call(lonely.file_and_line)[0].startswith('master:/')
    assert child.call(responder_child.importable, 'no_such_thing')[0] in ('ImportError', 'ModuleNotFoundError')
    child.call(responder_child.log, 'x.y', logging.WARNING, 'hi %s', 5)
    child.call(responder_child.say, u'ding')

    grandchild = router.local(via=child)
    assert grandchild.call(os.getpid)
    assert grandchild.call(responder_child.importable, 'sys') is None
    router.responder.forward_modules(grandchild, ['finder_pkg.sub'])
    before = router.get_stats()['get_module_count']
    assert grandchild.call(responder_child.importable, 'finder_pkg.sub') is None
    assert router.get_stats()['get_module_count'] == before


def try_router(router):
    get = router.resource_responder._get_resource
    assert get('resource_pkg', 'sub_dir/empty') == b''
    assert get('resource_pkg', 'text.txt') == b'text\n'
    assert get('resource_pkg', 'sub_dir') is None
    assert get('resource_pkg', '../lonely.py') is None

    corker = mitogen.os_fork.Corker(brokers=(router.broker,))
    corker.cork()
    corker.uncork()
    for key in mitogen.debug.get_router_info()['routers']:
        assert mitogen.debug.get_stream_info(key)['streams']
    assert 'ThreadID' in mitogen.debug.get_snapshot()


def main(router):
    try_select()
    try_cast()
    try_finder()
    try_children(router)
    try_router(router)


if __name__ == '__main__':
    handler = Records()
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    mitogen.utils.run_with_router(main)
    found = dict((record.name, record) for record in handler.records)
    assert found['x.y.[zed]'].getMessage() == 'hi 5'
    assert found['x.y.[zed]'].mitogen_name == 'x.y'
    assert found['stdout.[zed]'].getMessage() == 'ding'
    assert finder_pkg.replaces_itself
    print('done', sys.version_info[0])
