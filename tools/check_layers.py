#!/usr/bin/env python3
"""
Checks that includes and imports run downwards only, as _mitogen_core/README.rst and
docs/architecture.rst say.

Each file of the engine has a place in ENGINE, each part of the binding one in BINDING, each module
of the package one in PACKAGE, and one in FOLDERS if it is in a folder there; it may use the files
before it in the list. A file without a place is an error too, so that a new one is given some
thought. The binding, moreover, touches no members of the engine's objects: it asks the engine's
functions.

Imports that only a type checker sees do not count. Modules that a message or a program asks for
while it runs are loaded by name (`import_module`), and are no imports either.
"""

import ast
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

#: (room, its files), lowest first. A file may include what stands before it.
ENGINE = [
    ('base', ['err', 'clock', 'well_known', 'ilist', 'alloc', 'block', 'buf', 'idmap']),
    ('wire', ['opcode', 'frame', 'decoder', 'peek', 'landing', 'outq']),
    ('sync', ['spin', 'waiter', 'latch']),
    ('loop', ['poller', 'task_list', 'event_ring', 'loop_ref', 'loop_body', 'all_loops', 'loop_life', 'spares', 'leader_work',
              'leader', 'leader_spin', 'lead', 'atfork', 'loop', 'lifeline']),
    ('net', ['peer', 'sink', 'stream_body', 'stream', 'stream_flow', 'stream_write', 'reason', 'event_kinds', 'router_body',
             'handler', 'refusals', 'snapshot', 'statistics', 'router', 'event_drop']),
]

#: Parts of the binding, lowest first. A part may use what stands before it, and any header of the
#: engine.
BINDING = [
    'compat', 'fields', 'locks', 'gil', 'later',
    'codec/limits', 'codec/depth', 'codec/config', 'codec/globals',
    'codec/pickled', 'codec/writer', 'codec/write_values', 'codec/write_containers', 'codec/write_objects', 'codec/write',
    'codec/unpickler', 'codec/probes', 'codec/read_values', 'codec/read_containers', 'codec/read_objects', 'codec/read',
    'module_state', 'errors', 'arguments', 'callee', 'binding_event_kinds', 'counterpart',
    'payload', 'message_object', 'items', 'waiting', 'latch_object',
    'router_tables', 'router_handlers', 'receiver_object', 'answers', 'sender_object', 'context_object',
    'watch_object', 'event_object', 'loop_object', 'link_object', 'router_object',
    'socket_object',
    'module',
]

#: Objects of the engine, whose members only the engine knows. (The rest of its types are values:
#: headers, items, events, figures.)
ENGINE_OBJECTS = ['block', 'buf', 'decoder', 'frame', 'handler', 'idmap', 'landing', 'latch', 'lifeline', 'loop', 'outq', 'peer', 'router',
                  'sink', 'sleeper', 'stream', 'waiter', 'watch']

#: Modules of the package, lowest first. Those on one line do not know each other.
PACKAGE = [
    ['_house', 'imports', 'minify', 'profiler', '_build', '_core_texts'],  # setup.py writes the last two
    ['_tokens'],
    ['_shrink'],
    ['_native'],
    ['core'],
    ['select', 'limits', 'debug', 'os_fork', '_tasks', '_buffers', '_typed', '_values', '_distributions', '_folders',
     '_kept_archives', '_private_folder', '__main__'],
    ['service', 'values', '_files', '_freight', '_running', '_spawning', '_console', '_processes', '_links', '_facts'],
    ['_promises'],
    ['parent'],
    ['_core_shipment'],
    ['master'],
    ['fork', 'srun', 'ssh', 'sudo', 'su', 'docker', 'podman', 'buildah', 'incus', 'jail', 'kubectl', 'lxc', 'lxd', 'setns'],
    ['doas'],
    ['fakessh', 'unix', 'utils'],
    ['_tree'],
    ['aio', '_cli', 'otel', 'prometheus'],
    # To read the state of the package, every module may import `mitogen` itself, which has
    # mitogen.main(), too.
    ['__init__'],
    ['command'],
    ['ansible'],
]

#: The modules of folders that are packages of their own, lowest first.
FOLDERS = {
    '_tree': ['compiled', 'errors', 'typed', 'record', 'options', 'observing', 'replies', 'future', 'target', 'python', 'output', 'tasks', 'worker',
              'stream', 'caller', 'running', 'calls', 'content', 'meter', 'files', 'sync_meter', 'shared_blocks', 'sync',
              'mapping', 'executor', 'reader', 'info', 'host',
              'group', 'tree', 'bridge', 'aio', 'tracing', 'figures', '__init__'],
    '_cli': ['__init__', 'values', 'paint', 'display', 'progress', 'hosts', 'connecting', 'completion', 'ping', 'run', 'cp',
             'doctor', 'session', 'cells', 'shell', 'top', 'tree'],
    '_console': ['__init__', 'cells'],
    '_tasks': ['__init__', 'observed_coroutine', 'observed', 'spans'],
    '_files': ['__init__', 'items', 'sync_items', 'open_folder', 'blocks', 'basis', 'reader', 'new_entry', 'synced_file',
               'writer', 'sync_writer', 'comparison', 'sync_source', 'opened', 'sync_opened', 'folders'],
    'ansible': ['__init__', 'values', 'folder', 'waiting', 'wire', 'answers', 'payload', 'sent', 'environment', 'fragments',
                'hub', 'remote', 'target', 'kept',
                'importing', 'child', 'background', 'zygote',
                'client', 'closure', 'builtin', 'names', 'warm', 'become', 'command', 'strategy', 'connection', 'containers',
                'daemon', 'plugins.connection.local', 'plugins.connection.ssh'],
}

#: The part of `mitogen.core` that imports `mitogen._native`. That is made of what stands in the
#: parts before this one.
CHOICE = 'choice'

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)', re.M)


def read(path):
    with open(path, encoding='utf-8') as fp:
        return fp.read()


def includes(path):
    """
    Return (names in quotes, names in angle brackets) that a C file includes.
    """
    found = INCLUDE.findall(read(path))
    return [quoted for quoted, _ in found if quoted], [angled for _, angled in found if angled]


def check_engine():
    folder = os.path.join(ROOT, '_mitogen_core', 'engine')
    layers = ['%s/%s' % (room, stem) for room, stems in ENGINE for stem in stems]
    for room in sorted(os.listdir(folder)):
        if room == 'build' or not os.path.isdir(os.path.join(folder, room)):
            continue
        for base in sorted(os.listdir(os.path.join(folder, room))):
            name = '%s/%s' % (room, base)
            stem, ext = os.path.splitext(name)
            if ext not in ('.c', '.h'):
                continue
            ours, systems = includes(os.path.join(folder, name))
            if 'Python.h' in ours + systems:
                yield '%s includes Python.h' % (name,)
            if room == 'test':
                continue
            if 'ev.h' in ours + systems and name != 'loop/poller.c':
                yield '%s includes libev; only loop/poller.c may' % (name,)
            if stem not in layers:
                yield '%s has no place in the layers of the engine' % (name,)
                continue
            for used in [header[:-2] for header in ours]:
                if used not in layers:
                    yield '%s includes %s.h, which is not of the engine' % (name, used)
                elif layers.index(used) > layers.index(stem):
                    yield '%s includes %s.h, which is above it' % (name, used)


def check_binding():
    folder = os.path.join(ROOT, '_mitogen_core')
    for room in ('', 'codec'):
        for base in sorted(os.listdir(os.path.join(folder, room))):
            name = '%s/%s' % (room, base) if room else base
            stem, ext = os.path.splitext(name)
            if ext not in ('.c', '.h'):
                continue
            if stem not in BINDING:
                yield '%s has no place in the layers of the binding' % (name,)
                continue
            path = os.path.join(folder, name)
            for used in [header[:-2] for header in includes(path)[0]]:
                if used in BINDING and BINDING.index(used) > BINDING.index(stem):
                    yield '%s includes %s.h, which is above it' % (name, used)
                elif used not in BINDING and used.partition('/')[0] not in dict(ENGINE):
                    yield '%s includes %s.h, which is neither of the binding nor of the engine' % (name, used)
            for line, text in members_touched(path):
                yield '%s:%d: touches a member of an object of the engine: %s' % (name, line, text)


def members_touched(path):
    """
    Yield (line, text) for each access to a member of an object of the engine, by a pointer that is
    declared in this file or in a header of the binding, or by a cast.
    """
    kind = r'\bmg_(?:%s) \*' % ('|'.join(ENGINE_OBJECTS),)
    text = read(path)
    names = set(re.findall(kind + r'(?:const )?(\w+)', text))
    for header in includes(path)[0]:
        if header[:-2] in BINDING:
            names.update(re.findall(kind + r'(\w+)[;,]', read(os.path.join(ROOT, '_mitogen_core', header))))
    shadows = r'(?<![\w.>])' if names else ''
    touch = re.compile(r'%s(?:%s)->\w+|%s\) [^()]+\)->\w+' % (shadows + r'(?:\w+->)*', '|'.join(sorted(names)) or '(?!)', kind))
    for number, line in enumerate(text.split('\n'), 1):
        found = touch.search(line)
        if found:
            yield number, found.group()


def seen_when_run(tree):
    """
    Yield each node of a module, without what stands under ``if TYPE_CHECKING:``.
    """
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and getattr(node.test, 'id', None) == 'TYPE_CHECKING':
            waiting.extend(node.orelse)
        else:
            waiting.extend(ast.iter_child_nodes(node))


def imported(path):
    """
    Yield (line, name below mitogen) for each import from the package, wherever it stands. The name
    may go on with that of something in the module.
    """
    for node in seen_when_run(ast.parse(read(path), path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ['%s.%s' % (node.module, alias.name) for alias in node.names]
            if node.level:
                names = ['mitogen.' + '.' * node.level + (node.module or '')]
        for name in names:
            package, _, rest = name.partition('.')
            if package == 'mitogen' and rest:
                yield node.lineno, rest


def order_of_parts():
    """
    Return what `mitogen/_house.py` says: module -> its parts, lowest first.
    """
    names = {}
    exec(compile(read(os.path.join(ROOT, 'mitogen', '_house.py')), '_house.py', 'exec'), names)
    return names['PARTS']


def folder_of(module):
    """
    Return the folder of the parts of a module.
    """
    return '_' + module.strip('_')


def bound(body):
    """
    Yield the names that statements at the top level bind, in whatever branch they stand.
    """
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                yield (alias.asname or alias.name).partition('.')[0]
        elif isinstance(node, (ast.If, ast.For, ast.Try, ast.With)):
            for inner in [node.body, getattr(node, 'orelse', [])] + [h.body for h in getattr(node, 'handlers', [])]:
                yield from bound(inner)
        else:
            for target in ast.walk(node):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    yield target.id


def check_parts(module, parts):
    """
    Check that the head of each part, which is never run, names only what the parts before it have.
    That a part uses no other names, ruff tells.
    """
    folder = os.path.join(ROOT, 'mitogen', folder_of(module))
    files = sorted(name[:-3] for name in os.listdir(folder) if name.endswith('.py'))
    if files != sorted(parts):
        yield 'mitogen/%s: the files are not the parts that _house.py lists' % (folder_of(module),)
        return
    known = set()
    for part in parts:
        where = 'mitogen/%s/%s.py' % (folder_of(module), part)
        text = read(os.path.join(ROOT, where))
        lines = text.split('\n')
        tree = ast.parse(text, where)
        head = [node for node in ast.walk(tree) if hasattr(node, 'lineno') and lines[node.lineno - 1].endswith('  # house')]
        for node in head:
            for name in bound([node]) if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
                if name not in known:
                    yield '%s:%d: takes %s, which no part before it has' % (where, node.lineno, name)
        known.update(bound(node for node in tree.body if node not in head))


def places():
    """
    Return (module -> its place, a pair that rises from layer to layer). A package has the place of
    its `__init__`.
    """
    found = {}
    for number, names in enumerate(PACKAGE):
        for name in names:
            found[name] = number, 0
            for inner, module in enumerate(FOLDERS.get(name, ())):
                found['%s.%s' % (name, module)] = number, inner
                if module == '__init__':
                    found[name] = number, inner
    return found


def module_of(name, place):
    """
    Return the module with a place that a name begins with: that of a module, or of something in
    one. Else None.
    """
    while name and name not in place:
        name = name.rpartition('.')[0]
    return name or None


def package_files(parts):
    """
    Yield (path below mitogen/, module) of all files; a part is in its module's place.
    """
    rooms = dict((folder_of(module), module) for module in parts)
    top = os.path.join(ROOT, 'mitogen')
    for base, _, names in sorted(os.walk(top)):
        folder = os.path.relpath(base, top).replace(os.sep, '.').lstrip('.')
        for name in sorted(names):
            if name.endswith('.py'):
                path = os.path.relpath(os.path.join(base, name), top)
                yield path, rooms.get(folder, '%s.%s' % (folder, name[:-3]) if folder else name[:-3])


def check_package():
    place = places()
    parts = order_of_parts()
    own = set(bound(ast.parse(read(os.path.join(ROOT, 'mitogen', '__init__.py'))).body))
    yield from check_native(parts)
    for module in sorted(parts):
        yield from check_parts(module, parts[module])
    for path, module in package_files(parts):
        if module not in place:
            yield 'mitogen/%s has no place in the layers of the package' % (path,)
            continue
        for line, name in imported(os.path.join(ROOT, 'mitogen', path)):
            used = module_of(name, place)
            if used is None and name in own:
                continue
            if used is None:
                yield 'mitogen/%s:%d: imports mitogen.%s, which has no place in the layers' % (path, line, name)
            elif place[used] >= place[module] and not (used == module and os.sep in path):
                yield 'mitogen/%s:%d: imports mitogen.%s, which is not below it' % (path, line, used)


def check_native(parts):
    """
    Check that `mitogen._native` uses no name of `mitogen.core` that is not there when it is
    imported. It names that module `core`. Once a program runs it may have a class that was chosen
    as `mitogen.core.Message`.
    """
    below = set()
    for part in parts['core'][:parts['core'].index(CHOICE)]:
        below.update(bound(ast.parse(read(os.path.join(ROOT, 'mitogen', '_core', part + '.py'))).body))
    for part in parts['_native']:
        where = 'mitogen/_native/%s.py' % (part,)
        for node in ast.walk(ast.parse(read(os.path.join(ROOT, where)))):
            if isinstance(node, ast.Attribute) and getattr(node.value, 'id', None) == 'core' and node.attr not in below:
                yield '%s:%d: uses %s, which no part of mitogen.core before its %s has' % (
                    where, node.lineno, node.attr, CHOICE)


def main():
    bad = list(check_engine()) + list(check_binding()) + list(check_package())
    print('\n'.join(bad) or 'layers: all well')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
