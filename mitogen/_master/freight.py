# SPDX-License-Identifier: BSD-3-Clause
"""
Freight: distributions that travel whole, since their modules alone would not
work.
"""

from __future__ import absolute_import  # house

import collections  # house
import os  # house
import sys  # house
import threading  # house

import mitogen.core  # house
import mitogen.parent  # house

from mitogen.master import _Archive, _find_spec, _log_swallowed, _normalize, _Platform, _Sites, _TooLarge  # house
from mitogen.master import _WheelFiles, b, is_stdlib_path, PY3, RESPONDER_LOG, to_text  # house


_TAKE = u'\0take '
_RETAKE = u'\0retake '
_OFFER = u'\0offer'
_PIECE = u'\0piece '

#: The text of a module that stands for one of a distribution that travels whole.
_STUB = 'import mitogen._freight\nmitogen._freight.take(%r, %r)\n'

#: The text of a native extension that does not travel.
_REFUSAL = 'import mitogen._freight\nmitogen._freight.refuse(%r, %r, %r)\n'

_NO_RECORD = (
    'it is a native extension, and no installed distribution of the master has '
    'it in its RECORD; install it from a wheel there')

_NOT_HERE = 'it is a native extension, and %s has not come'


class _Load(object):
    """
    The text that is sent in place of a module.

    :ivar distribution: that it belongs to, :data:`None` if there is none.
    :ivar str path: of its file.
    :ivar str text:
        The module that is sent. :data:`None` if it comes with its distribution,
        so that it is sent only if it is asked for.
    """
    def __init__(self, distribution, path, present, text):
        self.distribution = distribution
        self.path = path
        self.present = present
        self.text = text

    def comes_whole(self):
        """
        Tell whether the module fetches its distribution.
        """
        return self.text is not None and '.take(' in self.text


def _refused_by(stream):
    """
    Return the labels of the distributions that the child at the other end of a
    stream was refused.
    """
    protocol = stream.protocol
    refused = getattr(protocol, '_refused_distributions', None)
    if not isinstance(refused, set):
        refused = protocol._refused_distributions = set()
    return refused


class _Takes(object):
    """
    The distributions that one child was offered.
    """
    def __init__(self):
        #: Modules that were sent in place of distributions which are not offered yet.
        self.names = []
        #: Names of modules whose distributions were offered before the child asked.
        self.offered = set()
        #: Name of such a module -> functions that answer the child once its offer is sent.
        self.open = {}
        #: The text that says what the child can load, once it has asked for one.
        self.description = None


def _takes_of(stream):
    """
    Return the :class:`_Takes` of the child at the other end of a stream.
    """
    protocol = stream.protocol
    takes = getattr(protocol, '_takes', None)
    if not isinstance(takes, _Takes):
        takes = protocol._takes = _Takes()
    return takes


class _Freight(object):
    """
    Decides which distributions of one router travel whole, and answers the
    children that ask for them. Broker thread, but for :meth:`ship` and where
    it is said.

    :param ModuleResponder responder:
    """
    #: Archives that are kept, in bytes.
    most_kept = 64 * 1048576

    #: Bytes of a compressed archive, and of another, that a child is sent before it asks for it.
    most_ahead, most_stored_ahead = 1048576, 4194304

    def __init__(self, responder, router):
        self._responder = responder
        self._router = router
        self._sites = _Sites()
        #: Normalized name -> its wheels, for those that the program wants to
        #: travel. Any thread; never changed in place.
        self._chosen = {}
        self._own = None
        #: (path, stamp, magic, limit, is it stored) -> _Archive, or text that says why there is
        #: none.
        self._made = collections.OrderedDict()
        #: Key as above -> functions that wait for it.
        self._wanted = {}
        #: Arguments of `_make` that wait for their turn, the first one's is now.
        self._packing = collections.deque()

    def ship(self, names, wheels):
        """
        Have distributions travel whole, whatever their size. Any thread.

        :param names: of the distributions.
        :param wheels: folder with files of wheels, or :data:`None`.
        :raises ValueError: there is no such wheel in the folder.
        :raises OSError: the folder cannot be read.
        """
        chosen = dict(self._chosen)
        for name in names:
            found = []
            if wheels is not None:
                found = [_WheelFiles(os.path.join(wheels, entry))
                         for entry in sorted(os.listdir(wheels))
                         if entry.endswith('.whl') and
                         _normalize(entry.partition('-')[0]) == _normalize(name)]
                if not found:
                    raise ValueError('%r has no wheel of %r' % (wheels, name))
            chosen[_normalize(name)] = found
        self._chosen = chosen
        self._router.broker.defer(self._responder._forget_parcels)

    def _find(self, fullname, path=None):
        """
        Return the distribution that has a module, or :data:`None`.

        :param path: of its file, if that is known.
        """
        for wheels in self._chosen.values():
            for wheel in wheels:
                if wheel.path_of(fullname):
                    return wheel
        return self._sites.find(fullname, path)

    def _is_whole(self, distribution):
        """
        Tell whether a distribution travels whole as soon as a child imports it.
        """
        return bool(_normalize(distribution.name) in self._chosen or
                    distribution.natives or
                    distribution.is_light(self._router.limits.shipped_data_bytes) and distribution.reads_by_path())

    def _may_travel(self, distribution):
        return self._is_whole(distribution) or distribution.reads_by_path()

    def find(self, fullname, path):
        """
        Return how a module travels, as a pair. First the :class:`_Load` for it, :data:`None` if it
        is served as any other. Then whether the files of its distribution are sent once the child
        looks for one of them.

        :param path: of its source, :data:`None` if there is none.
        """
        top = fullname.partition('.')[0]
        if not PY3 or top in ('mitogen', '__main__'):
            return None, False
        if path is None and top in getattr(sys, 'stdlib_module_names', ()):
            # An extension of Python's own. To find no distribution of it, the lists of files of all
            # would be read.
            return None, False
        distribution = self._find(fullname, path)
        if distribution is None:
            return self._find_stray(fullname) if path is None else None, False
        is_there = isinstance(distribution, _WheelFiles) or path is None or \
            os.path.abspath(path) == os.path.abspath(distribution.full_path(fullname))
        if not is_there or not self._is_whole(distribution):
            return None, is_there and distribution.reads_by_path()
        text = None
        if fullname == distribution.outermost(fullname):
            text = _STUB % (fullname, distribution.label)
        elif fullname in distribution.natives:
            text = _REFUSAL % (fullname, distribution.label,
                               _NOT_HERE % (distribution.label,))
        return _Load(distribution, distribution.full_path(fullname),
                     distribution.children(fullname), text), False

    def _find_stray(self, fullname):
        """
        Return the :class:`_Load` for a native extension of no distribution.
        """
        import importlib.machinery
        try:
            spec = _find_spec(fullname)
        except Exception:
            return None
        origin = getattr(spec, 'origin', None) or ''
        if not origin.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)) or \
                is_stdlib_path(os.path.abspath(origin)):
            return None
        return _Load(None, origin, None, _REFUSAL % (fullname, '', _NO_RECORD))

    def prepare(self, stream, distribution, runs_our_bytecode):
        """
        Have the archive made that a child is likely to ask for, as it was just sent the module that
        stands for it.

        :param stream: to the child.
        :param bool runs_our_bytecode: the child does.
        """
        if not self._chosen.get(_normalize(distribution.name)) and self._is_small(distribution) and \
                (runs_our_bytecode or not distribution.natives):
            self._get_archive(distribution, self._own_platform().magic if runs_our_bytecode else '', stream,
                              lambda made: None)

    def _runs_anywhere(self, distribution):
        """
        Tell whether a distribution is the right one for each child that runs Python 3.
        """
        return not (distribution.natives or self._chosen.get(_normalize(distribution.name))) and \
            all(tag.endswith('-any') for tag in distribution.tags)

    def _is_small(self, distribution):
        """
        Tell whether a distribution may be sent before a child asks for it.
        """
        return distribution.size_of_all(distribution.files) <= self._router.limits.shipped_data_bytes

    def send_ahead(self, stream):
        """
        Send small distributions to a child that was sent the modules that stand for them, before it
        asks. Those with native extensions have to wait until it has asked for one, and so has said
        what it can load.
        """
        takes = _takes_of(stream)
        names, takes.names[:] = list(takes.names), []
        if self._router.target_cache_bytes:
            # The child may have them.
            return
        for name in names:
            first = self._find(name)
            if first is None or name in takes.offered:
                continue
            if takes.description is None and not self._runs_anywhere(first):
                takes.names.append(name)
            elif self._is_small(first):
                self._offer(stream, takes, name, first)

    def _offer(self, stream, takes, fullname, first):
        """
        Send a distribution before the child asks. All pieces go before the word that it is there.
        """
        own = self._own_platform()
        if takes.description is None:
            magic = own.magic if mitogen.parent._announced_by(stream).runs_our_bytecode() else ''
            distribution = first
        else:
            platform = _Platform(takes.description)
            magic = own.magic if platform.magic == own.magic else ''
            distribution, _ = self._choose(first, fullname, platform)
        if distribution is None:
            # The child will ask, and be told why.
            return
        takes.offered.add(fullname)
        takes.open[fullname] = []

        def on_made(made):
            if not self._is_there(stream):
                return
            if isinstance(made, _Archive) and made.packed_size <= self._most_ahead(stream):
                for number in range(1, len(made.pieces)):
                    self._send(stream, fullname, u'%s%s %d' % (_PIECE, made.digest, number), made.pieces[number])
                self._send(stream, fullname, _OFFER, self._describe(made, 0))
            else:
                takes.offered.discard(fullname)
            for func in takes.open.pop(fullname):
                func()

        self._get_archive(distribution, magic, stream, on_made)

    def _is_there(self, stream):
        return self._router.stream_by_id(stream.protocol.remote_id) is stream

    def _most_ahead(self, stream):
        return self.most_ahead if mitogen.parent._is_far(stream) else self.most_stored_ahead

    def _send(self, stream, fullname, resource, content):
        message = mitogen.core.Message.pickled((to_text(fullname), to_text(resource)), content)
        message.dst_id = stream.protocol.remote_id
        message.handle = mitogen.core.LOAD_RESOURCE
        self._router._async_route(message)

    def _own_platform(self):
        if self._own is None:
            import mitogen._freight
            self._own = _Platform(mitogen._freight.describe())
        return self._own

    def answer(self, stream, fullname, resource, reply):
        """
        Answer a request, now or later.

        :param stream: that it came by.
        :param resource: text that says what is wanted.
        :param reply: function to call with the content.
        :returns: False if the request is none of ours.
        """
        takes = _takes_of(stream)
        if resource.startswith(_TAKE) and fullname in takes.offered:
            self._answer_offered(stream, takes, fullname, resource, reply)
        elif resource.startswith((_TAKE, _RETAKE)):
            takes.description = resource.partition(' ')[2]
            self._take(stream, fullname, takes.description, reply)
            self.send_ahead(stream)
        elif resource.startswith(_PIECE):
            reply(self._get_piece(resource[len(_PIECE):]))
        else:
            return False
        return True

    def _get_piece(self, text):
        digest, _, number = text.partition(' ')
        for key, made in self._made.items():
            if getattr(made, 'digest', None) == digest:
                # It goes last.
                self._made[key] = self._made.pop(key)
                return made.pieces[int(number)]

    def _answer_offered(self, stream, takes, fullname, resource, reply):
        """
        Answer a child that asks for a distribution which it is being offered: the answer waits
        until the whole offer is sent.
        """
        def func():
            if fullname in takes.offered:
                reply(b('offered'))
            else:
                self.answer(stream, fullname, resource, reply)

        if fullname in takes.open:
            takes.open[fullname].append(func)
        else:
            func()

    def _take(self, stream, fullname, description, reply):
        """
        Answer a child that wants the distribution of a module.
        """
        own, platform = self._own_platform(), _Platform(description)
        first = self._find(fullname)
        if first is None or not self._may_travel(first):
            return reply(b('no it is not among those that travel whole'))

        def on_made(made):
            if not isinstance(made, _Archive):
                # From now on its modules are sent one by one.
                _refused_by(stream).add(first.label)
            reply(self._describe(made, self._router.target_cache_bytes))

        distribution, why = self._choose(first, fullname, platform)
        if distribution is None:
            on_made(why)
        else:
            # A child chooses among two archives. It cannot cause more to be
            # made.
            magic = own.magic if platform.magic == own.magic and self._is_whole(distribution) else ''
            self._get_archive(distribution, magic, stream, on_made)

    def _choose(self, first, fullname, platform):
        """
        Return the distribution that runs on a platform, and why there is none.

        :param first: the one that has the module, wherever it runs.
        """
        candidates = [wheel for wheel in self._chosen.get(_normalize(first.name), ())
                      if wheel.path_of(fullname)]
        installed = self._sites.find(fullname)
        if installed is not None and self._may_travel(installed):
            candidates.append(installed)
        reasons = []
        for candidate in candidates:
            why = platform.why_not(candidate.tags or self._guess_tags(candidate),
                                   self._own)
            if why is None:
                return candidate, None
            reasons.append(why)
        return None, '%s cannot go there because of %s; give it wheels for that ' \
            'child: router.ship(%r, wheels=...)' % (
                first.label, '; '.join(reasons), str(first.name))

    def _guess_tags(self, distribution):
        """
        Return the tags of a distribution that was not installed from a wheel.
        """
        if not distribution.natives:
            return ['py3-none-any']
        own = self._own
        return ['%s-%s-%s' % (own.python, own.abi, own.platform)]

    @staticmethod
    def _describe(made, kept):
        """
        Return the message to a child about an archive.

        :param int kept:
            Bytes of archives that the child may keep for later runs. If it may keep any, it may
            have this one, and asks for the first piece as for the others.
        """
        if not isinstance(made, _Archive):
            return ('no ' + made).encode('utf-8')
        head = 'ok %s %d %d %d\n' % (made.digest, made.size, len(made.pieces), kept)
        return head.encode('utf-8') + (b('') if kept else made.pieces[0])

    def _get_archive(self, distribution, magic, stream, func):
        """
        Call a function with an archive, or with text that says why there is none,
        once that is known.

        :param stream: that it is for. A small one for a child of this machine is not compressed.
        """
        most = self._most_of(distribution)
        is_stored = not mitogen.parent._is_far(stream) and \
            distribution.size_of_all(distribution.files) <= self._router.limits.shipped_data_bytes
        key = distribution.origin, distribution.stamp, magic, most, is_stored
        made = self._made.get(key)
        if made is not None:
            return func(made)
        waiting = self._wanted.setdefault(key, [])
        waiting.append(func)
        if len(waiting) == 1:
            self._packing.append((key, distribution, magic, most, is_stored))
            if len(self._packing) == 1:
                self._make_next()

    def _make_next(self):
        """
        Make the archive whose turn it is. Archives are made one at a time, as each takes a whole
        processor.
        """
        thread = threading.Thread(target=self._make, name='mitogen-freight', args=self._packing[0])
        thread.daemon = True
        try:
            thread.start()
        except RuntimeError as e:
            # The system gives none. Children that ask later may have more luck.
            key, distribution = self._packing[0][:2]
            made = '%s cannot be packed: %s' % (distribution.label, e)
            self._router.broker.defer(self._finish, key, made, False)

    def _most_of(self, distribution):
        if _normalize(distribution.name) in self._chosen:
            return float('inf')
        return self._router.limits.shipped_bytes

    def _make(self, key, distribution, magic, most, is_stored):
        """
        Make an archive. A thread of its own, as that takes seconds.
        """
        try:
            made = self._pack(distribution, magic, most, is_stored)
        except _TooLarge:
            made = ('the size of %s: compressed it has more than the %d bytes of '
                    'limits.shipped_bytes; call router.ship(%r)' % (
                        distribution.label, most, str(distribution.name)))
        except Exception as e:
            _log_swallowed(RESPONDER_LOG, 'cannot pack %s', distribution.label)
            made = '%s cannot be read: %s' % (distribution.label, e)
        self._router.broker.defer(self._finish, key, made)

    def _pack(self, distribution, magic, most, is_stored):
        import binascii
        paths, bytecode = distribution.choose(self._responder.policy.denied,
                                              most == float('inf'))
        start = binascii.unhexlify(magic)
        useful = (entry for entry in distribution.load(bytecode if magic else ())
                  if entry[-1].startswith(start))
        # Children wait until an archive is freed, unless this one would never
        # fit otherwise.
        size = distribution.size_of_all(paths)
        level = 0 if is_stored else 6 if 2 * most < size < 8 * most else 2
        return _Archive(distribution.load(paths), useful, most, level)

    def _finish(self, key, made, keeps=True):
        self._packing.popleft()
        if self._packing:
            self._make_next()
        # A child may ask again for an archive that was freed: it is made anew.
        if keeps:
            self._made[key] = made
        while len(self._made) > 1 and sum(
                getattr(other, 'packed_size', 0)
                for other in self._made.values()) > self.most_kept:
            self._made.popitem(last=False)
        for func in self._wanted.pop(key):
            try:
                func(made)
            except Exception:
                # Others wait for it, too.
                RESPONDER_LOG.exception('%s cannot be sent', key[0])
