# SPDX-License-Identifier: BSD-3-Clause
"""
Shipments: whole answers, kept for further children that lack the same.
"""

from __future__ import absolute_import  # house

import collections  # house


class _Shipments(object):
    """
    Answers to requests of children that have the same interpreter and the same
    modules, as many do: each is made once. Broker thread.

    :param ModuleResponder responder: whose counters count what is sent.
    """
    #: Answers that are kept, and bytes of them.
    most = 64
    most_bytes = 64 * 1048576

    #: Memory that a name takes in such a set.
    name_bytes = 128

    def __init__(self, responder):
        self._responder = responder
        #: Key -> list of (content of a message, parcels in it).
        self._kept = collections.OrderedDict()
        self._size = 0
        #: Key -> (list as above, iterator over the rest), of those that are made.
        self._begun = {}

    def get(self, kind, root, names, sent, make, wholes):
        """
        Yield the contents of the messages that answer a request.

        :param kind: in what form modules travel to the child.
        :param root: what it asks for.
        :param set names: names that it has.
        :param set sent: names of modules that it was sent, which grows.
        :param make:
            Function that makes the answer for a root: it yields pairs of
            content and parcels.
        :param list wholes:
            Gets the names of modules that stand for distributions that travel whole.
        """
        policy = self._responder.policy
        key = (kind, root, frozenset(names), frozenset(sent),
               frozenset(policy.overrides), frozenset(policy.blocks))
        kept = self._kept.get(key)
        if kept is not None and self._is_fresh(kept):
            for data, parcels in kept:
                self._note(parcels, root, sent, wholes)
                yield data
            return
        making = self._begun.get(key)
        if making is None:
            making = self._begun[key] = [], make(root)
        for data, parcels in self._follow(key, *making):
            self._note(parcels, root, sent, wholes)
            yield data

    def _follow(self, key, made, rest):
        """
        Yield all of an answer that is being made: the rest is made for the
        first child that needs it, as several may have asked at once.
        """
        count = 0
        while True:
            if count == len(made):
                try:
                    batch = next(rest, None)
                except Exception:
                    self._begun.pop(key, None)
                    raise
                if batch is None:
                    break
                made.append(batch)
            yield made[count]
            count += 1
        if self._begun.pop(key, None) is not None:
            self._keep(key, made)

    def _is_fresh(self, made):
        parcels = self._responder._parcels
        return all(parcels.is_fresh(parcel)
                   for _, batch in made for parcel in batch)

    def _keep(self, key, made):
        if not any(parcels for _, parcels in made):
            return
        if key in self._kept:
            # A file of the answer was edited.
            self._size -= self._weigh(key, self._kept.pop(key))
        self._kept[key] = made
        self._size += self._weigh(key, made)
        while len(self._kept) > self.most or self._size > self.most_bytes:
            self._size -= self._weigh(*self._kept.popitem(last=False))

    def _weigh(self, key, made):
        """
        Return about how many bytes an answer takes, with the names in its key:
        a child may send any number of names.
        """
        _, _, names, sent = key[:4]
        return sum(len(data) for data, _ in made) + \
            self.name_bytes * (len(names) + len(sent))

    def _note(self, parcels, root, sent, wholes):
        """
        Count modules that are about to be sent.
        """
        responder = self._responder
        for parcel in parcels:
            if responder._keeps(parcel, sent):
                sent.add(parcel.name)
            if parcel.load is not None and parcel.load.comes_whole():
                wholes.append(parcel.name)
            if parcel.path is None:
                responder.bad_load_module_count += 1
            else:
                responder.good_load_module_count += 1
            if parcel.name != root:
                responder.pushed_module_count += 1
