# SPDX-License-Identifier: BSD-3-Clause
"""
Push: a child that asks for a module is sent all modules that it needs.
"""

from __future__ import absolute_import  # house

import collections  # house
import sys  # house

import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _Closure, _Distance, _FOLDERS, _log_swallowed, _PROMISES, _refused_by, _takes_of, b, RESPONDER_LOG, to_text  # house


#: Names that modules of the standard library import where they can. Children of other
#: versions may have more of them.
_FOREIGN = ('_scproxy', '_winreg', '_wmi', 'java', 'winreg')


class _Batch(object):
    """
    Modules that go into one message.

    :param float until: when it is to be sent, be it as small as it may.
    """
    def __init__(self, until):
        self.until = until
        self.size = 0
        self._parcels = []
        self._entries = []
        self._contents = []

    def add(self, parcel, content, needs):
        """
        Add a module, or the news that there is none of that name.
        """
        self._parcels.append(parcel)
        self._entries.append((parcel.name, parcel.present, parcel.path, needs,
                              len(content)))
        self._contents.append(content)
        self.size += len(content)

    def add_failure(self, name):
        """
        Add the news that a module cannot be sent now. That is not remembered,
        as the reason may go away.
        """
        self._entries.append((to_text(name), None, None, (), 0))

    def pack(self, more=True):
        """
        Return the content of the message, and the parcels in it.
        """
        data = mitogen.parent._pack_modules(more, self._entries, self._contents)
        return data, self._parcels


class _Push(object):
    """
    Answers the requests of one child that has announced itself. Each is
    answered with the module, then with those that it needs and the child
    lacks, in order of need, and with the names of modules that do not exist
    here. The work is done in slices: other children have their turn in
    between. Broker thread.

    :param ModuleResponder responder:
    :param stream: to the child.
    """
    #: Bytes of content in one message, if there is time to collect them.
    chunk = 131072

    #: Bytes of the files of a package that are sent before the child asks for them.
    most_files = 524288

    #: Seconds of work in one slice.
    turn = 0.004

    def __init__(self, responder, stream):
        self._responder = responder
        self._parcels = responder._parcels
        self._router = responder._router
        self._stream = stream
        self._sent = stream.protocol.sent_modules
        self._announcement = mitogen.parent._announced_by(stream)
        self._distance = _Distance(getattr(stream, 'conn', None))
        self._kind = self._choose_kind()
        #: How many modules the child has not used.
        self._unused = 0
        #: (module that was asked for, modules that were sent for it), until it
        #: is known how far the child is.
        self._answered = collections.deque(maxlen=32)
        #: Distributions whose modules are sent one by one.
        self._refused = _refused_by(stream)
        self._wholes = _takes_of(stream).names
        #: Packages whose modules read their files.
        self._readers = set()
        self._files_sent = set()
        self._roots = collections.deque()
        self._messages = None
        self._foreign = _FOREIGN

    def _choose_kind(self):
        """
        Return whether the child is sent bytecode, and the level of compression. Level 6 takes 40 ms
        more than 1 for ``boto3``, and saves a tenth of the bytes.
        """
        level = 0
        if mitogen.parent._is_far(self._stream):
            level = 6 if self._distance.is_slow() else 1
        return self._announcement.runs_our_bytecode(), level

    def is_full(self):
        """
        Tell whether the queue of requests is full: answers go only as fast as
        they are read.
        """
        return len(self._roots) >= self._router.limits.requests

    def answer(self, fullname):
        """
        Have a request answered. The work begins when others that have come with
        it are known.
        """
        if self._messages is not None and fullname in self._sent:
            # The module is on its way already; the child asked before it came.
            return
        self._roots.append((fullname, fullname in self._sent))
        if self._messages is None:
            self._messages = self._make_messages()
            self._router._room.call_later(0.0, self._go_on)

    def hear(self, report):
        """
        Take a report of the child: ``+`` confirms a message, and ``-`` stands before the names of
        modules that have come and that it has not used.
        """
        if report[:1] == b('+'):
            self._distance.note_confirmed()
            return self._guess()
        unused = len(self._sent.intersection(report[1:].decode('utf-8', 'replace').split()))
        self._responder.unused_module_count += unused - self._unused
        self._unused = unused

    def _guess(self):
        """
        Once the child has all that it needs at once, and if it is far, send it modules that it is
        likely to need next: those that functions import.
        """
        if self._messages is not None or not self._distance.is_settled():
            return
        answered = list(self._answered)
        self._answered.clear()
        if answered and self._distance.spare_bytes():
            self._messages = self._make_guesses(answered)
            self._router._room.call_later(0.0, self._go_on)

    def _make_guesses(self, answered):
        """
        Yield the contents of messages with such modules.
        """
        for root, modules in answered:
            size = self._distance.spare_bytes()

            def make(root, modules=modules, size=size):
                return self._make_batches(self._walk_later(root, modules, size))
            for data in self._responder._shipments.get(
                    (self._kind, size, frozenset(self._refused)), root, self._announcement.names, self._sent, make,
                    self._wholes):
                yield data
        yield mitogen.parent._pack_modules(False, [], [])
        for data in self._make_messages():
            yield data

    def _walk_later(self, root, modules, size):
        """
        Yield the names of modules that functions of others import.

        :param set modules: the others, which the child was sent.
        :param int size: bytes of them that are enough.
        """
        self._root, self._pushed = None, 0
        lineage = [(name, True) for name in mitogen.core.module_lineage(root)]
        closure = _Closure(self._find_needs, self._is_wanted)
        for name in _Closure(self._find_needs, lambda name, _is_sure: name in modules).walk(lineage):
            for guess in closure.walk(self._find_later(name)):
                if self._comes_alone(guess):
                    yield guess
                if self._pushed >= size:
                    return

    def _go_on(self):
        """
        Do one slice of the work.
        """
        stream = self._stream
        if self._router.stream_by_id(stream.protocol.remote_id) is not stream:
            return
        began = mitogen.core.now()
        self._parcels.begin()
        try:
            data = next(self._messages, None)
        except Exception:
            _log_swallowed(RESPONDER_LOG, 'cannot answer %s', stream)
            self._messages = iter([self._give_up()])
            data = next(self._messages)
        finally:
            self._parcels.end()
        self._responder.get_module_secs += mitogen.core.now() - began
        if data is None:
            self._messages = None
            self._send_files()
            return self._guess()
        self._responder.good_load_module_size += len(data)
        self._distance.note_sent(len(data))
        mitogen.parent._send_load_module(self._router, stream, data)
        self._responder._freight.send_ahead(stream)
        room = self._router._room
        if room.is_there(stream):
            self._router._room.call_later(0.0, self._go_on)
        else:
            room.when_there(stream, self._go_on)

    def _send_files(self):
        """
        Send a child that is far the files beside modules that read files, if they are small.
        """
        packages, self._readers = self._readers - self._files_sent, set()
        if not mitogen.parent._is_far(self._stream) and not self._distance.is_far():
            return
        self._files_sent |= packages
        for package in sorted(packages):
            try:
                self._router.resource_responder._send_small_files(self._stream, package, self.most_files)
            except ImportError:
                # It may not have them, or there is no such package.
                RESPONDER_LOG.debug('not sending the files of %r', package, exc_info=True)
            except Exception:
                # The child asks for those that it reads, one after the other.
                _log_swallowed(RESPONDER_LOG, 'cannot send the files of %r before a child asks', package)

    def _give_up(self):
        """
        Return the content of a message that answers all requests: none of the
        modules can be had now.
        """
        batch = _Batch(0)
        for name in [self._root] * bool(self._root) + [root for root, _ in self._roots]:
            batch.add_failure(name)
        self._roots.clear()
        return batch.pack(False)[0]

    def _make_messages(self):
        """
        Yield the contents of messages, as long as there are requests.
        """
        while self._roots:
            while self._roots:
                for data in self._make_for_next():
                    yield data
            # Another request may come before the next slice.
            yield mitogen.parent._pack_modules(False, [], [])

    def _make_for_next(self):
        root, was_sent = self._roots.popleft()
        self._root = root
        if root in self._sent and not was_sent:
            # It was sent with an earlier answer.
            return ()
        # The child asks for a module that it says to have.
        self._announcement.names.discard(root.partition('.')[0])
        return self._make_answer(root)

    def _make_answer(self, root):
        before = frozenset(self._sent)
        self._kind = self._choose_kind()
        for data in self._responder._shipments.get(
                (self._kind, frozenset(self._refused)), root, self._announcement.names,
                self._sent, self._make_for_root, self._wholes):
            yield data
        new = self._sent.difference(before)
        self._answered.append((root, new))
        self._readers.update(filter(None, map(self._parcels.reads_files, new)))

    def _make_for_root(self, root):
        """
        Return a generator of pairs of the content of a message and the parcels
        in it.
        """
        return self._make_batches(self._walk(root), root)

    def _make_batches(self, names, root=None):
        """
        Yield pairs, as :meth:`_make_for_root` returns them, for the names of modules.
        """
        # The first module goes alone: the child is idle until it has it.
        batch = _Batch(0)
        for name in names:
            self._add(batch, name, name == root)
            if batch.size >= self.chunk or mitogen.core.now() >= batch.until:
                yield batch.pack()
                batch = _Batch(mitogen.core.now() + self.turn)
                self._add_foreign(batch)
        self._add_foreign(batch)
        yield batch.pack()

    def _add_foreign(self, batch):
        """
        Add, to the first answer, the news that nobody has the modules of other
        systems that the standard library asks for.
        """
        names, self._foreign = self._foreign, ()
        for name in names:
            if self._responder._find_servable(name)[1] is None:
                batch.add_failure(name)

    def _walk(self, root):
        """
        Yield the names of the modules that are sent for a module.
        """
        self._root, self._pushed = root, 0
        lineage = list(mitogen.core.module_lineage(root))
        closure = _Closure(self._find_needs, self._is_wanted)
        for count, name in enumerate(closure.walk([(name, True) for name in lineage])):
            if name == root or self._comes_alone(name):
                yield name
            if self._is_enough(count):
                break
        # The request itself is answered in any case.
        for name in lineage:
            if not closure.has_seen(name) and self._is_wanted(name, True):
                yield name

    def _comes_alone(self, fullname):
        """
        Tell whether a module is not among the files of a distribution that travels whole.
        """
        try:
            return not self._parcels.is_carried(fullname, self._refused)
        except Exception:
            _log_swallowed(RESPONDER_LOG, 'cannot find %r', fullname)
            return False

    def _find_later(self, fullname):
        try:
            return self._parcels.later(fullname)
        except Exception:
            # They are only a guess.
            _log_swallowed(RESPONDER_LOG, 'cannot find what functions of %r need', fullname)
            return []

    def _find_needs(self, fullname):
        try:
            return self._parcels.needs(fullname)
        except Exception:
            # Then fewer modules are sent.
            _log_swallowed(RESPONDER_LOG, 'cannot find what %r needs', fullname)
            return []

    def _is_enough(self, count):
        limits = self._router.limits
        return count >= limits.pushed_modules or \
            self._pushed >= limits.pushed_bytes

    def _is_wanted(self, fullname, is_sure):
        if fullname == self._root:
            return True
        if fullname == _FOLDERS and not self._announcement.is_older_than(12):
            return False
        top = fullname.partition('.')[0]
        package, _, name = fullname.rpartition('.')
        policy = self._responder.policy
        if (fullname in self._sent or
                fullname == '__main__' or
                top in sys.builtin_module_names or
                top in self._announcement.names and
                not (policy.overrides and policy.overriden(fullname))):
            return False
        try:
            is_there = self._parcels.has_inside(package, name) if package else \
                is_sure is None and self._parcels.get(fullname).path is not None or bool(is_sure)
            return is_there and not policy.denied(fullname)
        except Exception:
            _log_swallowed(RESPONDER_LOG, 'cannot find %r', fullname)
            return False

    def _add(self, batch, name, is_root):
        try:
            self._responder.policy.denied_raise(name)
            parcel = self._parcels.get(name)
            content = b('') if parcel.path is None else \
                self._parcels.content(parcel, *self._kind)
            needs = self._list_needs(name)
            if parcel.load is not None and parcel.load.comes_whole():
                self._responder._freight.prepare(self._stream, parcel.load.distribution, self._kind[0])
        except Exception as e:
            if isinstance(e, ImportError):
                RESPONDER_LOG.debug('%r cannot be served to %s', name,
                                    self._stream, exc_info=True)
            else:
                _log_swallowed(RESPONDER_LOG, 'cannot send %r to a child', name)
            # The child asks for the others if it needs them.
            if is_root:
                self._responder.bad_load_module_count += 1
                batch.add_failure(name)
            return
        self._pushed += len(content)
        batch.add(parcel, content, needs)

    def _list_needs(self, fullname):
        names = self._announcement.names
        return [
            to_text(name) for name, _ in self._parcels.needs(fullname)
            if name == _PROMISES or name.partition('.')[0] not in names
        ]
