"""
Tell the public names of an installed mitogen, by looking at it as it runs.

    python tests/lib/interface.py > tests/data/interface.txt

records those of the package that the given Python has. ``test_interface`` compares such a record
with our package, and docs/interface.rst says for each name which test is about it.
"""

import importlib
import inspect
import pkgutil
import sys
import types

#: Names that every module may import, and that are nobody's interface.
IMPORTED = ('absolute_import', 'print_function', 'PY3')

#: Values that depend on the machine.
OF_THE_MACHINE = ('SC_OPEN_MAX', 'SELINUX_ENABLED', 'IS_WSL', 'IS_LINUX', 'IS_SOLARIS', 'LINUX_TIOCGPTN',
                  'LINUX_TIOCSPTLCK', 'FORK_SUPPORTED', 'HAVE_OS_REGISTER_AT_FORK')

#: The methods of connection and what each has to be told.
METHODS = (
    ('buildah', {'container': 'x'}), ('doas', {}), ('docker', {'container': 'x'}), ('fork', {}),
    ('incus', {'container': 'x'}), ('jail', {'container': 'x'}), ('kubectl', {'pod': 'x'}), ('lxc', {'container': 'x'}),
    ('lxd', {'container': 'x'}), ('parent', {}), ('podman', {'container': 'x'}),
    ('setns', {'container': 'x', 'kind': 'docker'}), ('ssh', {'hostname': 'x'}), ('su', {}), ('sudo', {}),
)


def module_names():
    import mitogen
    import mitogen.core
    names = ['mitogen'] + ['mitogen.' + info[1] for info in pkgutil.iter_modules(mitogen.__path__)
                           if not info[1].startswith('_')]
    return sorted(names)


def is_own(module, name, value):
    """
    Return whether a module offers a name, and has not merely imported it.
    """
    if name.startswith('_') or name in IMPORTED or isinstance(value, types.ModuleType):
        return False
    if module.__name__ == 'mitogen.core':
        # Names that it has for the sake of old Pythons are its own too.
        return name not in ('fp', 'imap', 'latin_1_encode', 'utf_8_encode')
    owner = getattr(value, '__module__', None)
    if isinstance(value, type) or inspect.isroutine(value):
        core = sys.modules['mitogen.core']
        return owner is not None and owner.startswith('mitogen') and getattr(core, name, None) is not value
    return True


def kind_of(value):
    if isinstance(value, type):
        return 'class'
    if isinstance(value, (staticmethod, classmethod)) or inspect.isroutine(value):
        # Descriptors of fields are routines to nobody but `inspect`.
        if inspect.isgetsetdescriptor(value) or inspect.ismemberdescriptor(value):
            return 'data'
        return 'function'
    return 'data'


def signature_of(function):
    """
    Return the parameters as text, or '' for a function that does not tell.
    """
    function = getattr(function, '__func__', function)
    if function is getattr(str, getattr(function, '__name__', ''), None):
        return ''
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ''
    words = []
    for parameter in signature.parameters.values():
        if parameter.kind == parameter.POSITIONAL_ONLY:
            return ''
        word = {parameter.VAR_POSITIONAL: '*', parameter.VAR_KEYWORD: '**'}.get(parameter.kind, '') + parameter.name
        if parameter.default is not parameter.empty:
            default = parameter.default
            simple = default is None or isinstance(default, (bool, int, float, str, bytes, tuple, list, dict))
            word += '=%s' % (repr(default) if simple else '...',)
        words.append(word)
    # By name, each with its place, to be found with the eye.
    return ' | '.join(sorted('%s %d' % (word, place) for place, word in enumerate(words))) or 'nothing'


def value_of(value):
    """
    Return as text what is worth comparing of a value, or ''. Texts for people are free, so only
    words count.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str) and value and len(value) < 20 and ' ' not in value:
        return repr(value)
    return ''


def describe(value):
    kind = kind_of(value)
    if kind == 'class':
        # A class without a constructor of its own is not made by programs, or is made as its base
        # is.
        init = value.__dict__.get('__init__')
        return kind, signature_of(init) if inspect.isfunction(init) else ''
    if kind == 'function':
        return kind, signature_of(value)
    return kind, value_of(value)


def instances():
    """
    Yield one object of each class that can be made just so, to see what only objects have.
    """
    import mitogen.core
    import mitogen.master
    import mitogen.os_fork
    import mitogen.parent
    import mitogen.select
    import mitogen.service

    broker = mitogen.master.Broker(install_watcher=False)
    try:
        router = mitogen.master.Router(broker)
        yield broker
        yield router
        for module in mitogen.core, mitogen.parent:
            yield module.Context(router, 1)
            yield module.MitogenProtocol.build_stream(router, 1).protocol
        context = mitogen.parent.Context(router, 1)
        for obj in (
            mitogen.core.Latch(), mitogen.core.Receiver(router), mitogen.core.Sender(context, 1),
            mitogen.core.Channel(router, context, 1), mitogen.core.Message(), mitogen.core.Stream(),
            mitogen.core.Protocol(), mitogen.core.ImportPolicy(), mitogen.core.LogHandler(context),
            mitogen.core.CallError('x'), mitogen.core.Error('x'), mitogen.core.Poller(),
            mitogen.parent.TimerList(), mitogen.parent.Timer(1, len), mitogen.parent.CallChain(context),
            mitogen.parent.CallSpec(len, (), {}), mitogen.parent.Process(1, None, None), mitogen.parent.Argv([]),
            mitogen.parent.Reaper(broker, mitogen.parent.Process(1, None, None), False, False),
            mitogen.select.Select(), mitogen.select.Event(), mitogen.service.Service(router),
            mitogen.service.FileService(router), mitogen.service.PushFileService(router=router),
            mitogen.service.FileStreamState(), mitogen.master.ModuleFinder(), mitogen.os_fork.Corker(),
            router.responder, router.id_allocator, router.log_forwarder, router.route_monitor,
        ):
            yield obj
        with open('/dev/null') as fp:
            yield mitogen.core.Side(mitogen.core.Stream(), fp)
        for name, kwargs in METHODS:
            module = importlib.import_module('mitogen.' + name)
            options = module.Options(max_message_size=1, old_router=router, **kwargs)
            yield options
            yield module.Connection(options, router)
    finally:
        broker.shutdown()
        broker.join()


def names_of_instances():
    """
    Yield (module, class, attribute, value) for public attributes that objects have.
    """
    for obj in instances():
        cls = type(obj)
        for name, value in sorted(vars(obj).items()):
            if not name.startswith('_'):
                yield cls.__module__, cls.__name__, name, value


def record():
    """
    Return {(module, dotted name): (kind, parameters or value)}.
    """
    found = {}
    for module_name in module_names():
        if module_name.startswith('mitogen.compat'):
            found['mitogen', 'compat'] = 'module', ''
            continue
        module = importlib.import_module(module_name)
        for name, value in sorted(vars(module).items()):
            if not is_own(module, name, value):
                continue
            found[module_name, name] = describe(value)
            if name in OF_THE_MACHINE:
                found[module_name, name] = kind_of(value), ''
            if not isinstance(value, type) or value.__module__ != module_name or value.__name__ != name:
                continue
            for attribute, inner in sorted(members(value).items()):
                found[module_name, '%s.%s' % (name, attribute)] = describe(inner)
    for module_name, cls, name, value in names_of_instances():
        key = module_name, '%s.%s' % (cls, name)
        if not any((base.__module__, '%s.%s' % (base.__name__, name)) in found
                   for base in getattr(sys.modules[module_name], cls).__mro__):
            # Its kind depends on how the object was made.
            found[key] = 'attribute', ''
    return found


def members(cls):
    """
    Return {name: value} of what a class adds to its public bases. Names of a compiled or private
    base are its own.
    """
    found = {}
    for base in reversed(cls.__mro__):
        private = base.__module__ in ('_mitogen_core', '_mitogen_core_pure') or (
            base.__module__.startswith('mitogen') and base.__name__.startswith('_'))
        if base is cls or private or (base.__name__ == cls.__name__ and base.__module__ == cls.__module__):
            found.update((k, v) for k, v in vars(base).items() if not k.startswith('_'))
    return found


def main():
    sys.path[:] = [path for path in sys.path if path]
    for (module, name), (kind, detail) in sorted(record().items()):
        print('\t'.join((module, name, kind, detail)).rstrip('\t'))


if __name__ == '__main__':
    main()
