# SPDX-License-Identifier: BSD-3-Clause
"""
SyncSource: offers of what is there, and items of what is wanted of them.
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import collections
import functools
import itertools
import os
import stat

from mitogen._files import error, telling
from mitogen._files.blocks import are_sums, Block, block_size, blocks_of, DIGEST, hole_from, NO_DIGEST, read_at, Tally
from mitogen._files.items import DONE, FILE, FOLDER, is_number, LINK, SKIPPED, TOGETHER, UP
from mitogen._files.open_folder import OpenFolder
from mitogen._files.reader import GONE, items_of, opened, TO_READ, together
from mitogen._files.sync_items import AS_IT_WAS, CHECK, COPY, HOLE, KEEP, KEPT, SAME, SUM, TIME, time_of, WANTED
from mitogen.core import Blob

#: Bytes of files that are offered together, about: their digests are one message.
_MOST_OFFERED = 1 << 32

_CHANGED = 'it changed while it was read'
_UNKNOWN_SIZE = 'it has content, and says that it has none'

#: Answers that are numbers.
_NUMBERS = SAME, WANTED, KEPT


def read_block(key, read):
    """
    Return a block, by reading it.

    :param key: equal for blocks of the same content.
    """
    return Block(read())


def _offer(name, found):
    return FILE, Blob(name), stat.S_IMODE(found.st_mode), found.st_size, time_of(found)


def _offer_in(here, name, path, found):
    return [_offer(name, found)]


def _one_offer(path):
    with telling(path):
        found = os.stat(path)
    yield _offer(os.path.basename(path), found)


def _batches(offers):
    """
    Yield lists of offers.
    """
    batch, size = [], 0
    for offer in offers:
        batch.append(offer)
        size += offer[3] if offer[0] == FILE else 0
        if len(batch) >= TOGETHER or size >= _MOST_OFFERED:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_answered(offer):
    return offer[0] in (FILE, LINK)


def _is_answer(answer, offer):
    if is_number(answer):
        return answer in _NUMBERS
    if isinstance(answer, (tuple, list)) and len(answer) == 2 and answer[0] == CHECK:
        answer = answer[1]
    return offer[0] == FILE and are_sums(answer, offer[3])


class SyncSource(object):
    """
    One file or tree. Offers are taken first, then they are answered in their order, then items are
    read. Not for use by several threads.

    :param packs: whether data is compressed.
    :param load: returns the :class:`Block` of a key, as :func:`read_block` does.
    :raises FileError: it cannot be read.
    """
    def __init__(self, path, packs=False, load=read_block):
        self._path, self._packs, self._load = path, packs, load
        self._offers = items_of(path, _one_offer, _offer_in)
        self._left = _batches(self._offers)
        #: Batches that are not answered yet; those that are, with their answers.
        self._open, self._answered = collections.deque(), collections.deque()
        #: The folders that items are read in, each in the one before.
        self._folders = []
        self._lists = iter(())
        self._is_tree = None

    def offers(self):
        """
        Return some offers; None if there are no more.
        """
        batch = next(self._left, None)
        if batch is not None:
            self._open.append(batch)
        return batch

    def answer(self, answers):
        """
        Take the answers to the first offers that have none.

        :raises FileError: they are none.
        """
        batch = self._open.popleft() if self._open else []
        asked = [offer for offer in batch if _is_answered(offer)]
        if not isinstance(answers, (tuple, list)) or len(answers) != len(asked) or not all(
                _is_answer(answer, offer) for answer, offer in zip(answers, asked)):
            raise error(self._path, 'the answers do not match the files that were offered')
        self._answered.append((batch, answers))

    def read(self):
        """
        Return (items, whether all of the first answered offers are read now); None if no offers are
        answered.
        """
        while True:
            items = next(self._lists, None)
            if items is not None:
                return items
            if not self._answered:
                return None
            self._lists = self._lists_of(*self._answered.popleft())

    def close(self):
        """
        Let all go. May be repeated.
        """
        self._lists = iter(())
        self._offers.close()
        while self._folders:
            self._folders.pop().close()

    def _lists_of(self, batch, answers):
        for items in together(self._items(batch, iter(answers))):
            yield items, False
        yield [], True

    def _items(self, batch, answers):
        for offer in batch:
            answer = next(answers) if _is_answered(offer) else None
            for item in self._KINDS[offer[0]](self, answer, *offer[1:]):
                yield item

    def _folder(self, answer, name, mode):
        if self._folders:
            path = self._folders[-1].path_of(name)
            with telling(path):
                self._folders.append(self._folders[-1].folder(name))
        else:
            with telling(self._path):
                self._folders.append(OpenFolder.at(self._path))
        yield FOLDER, name, mode

    def _up(self, answer):
        self._folders.pop().close()
        yield UP,

    def _skipped(self, answer, name, why):
        yield SKIPPED, name, why

    def _link(self, answer, name, text):
        yield (AS_IT_WAS, name, -1) if answer == SAME else (LINK, name, text)

    def _file(self, answer, name, mode, size, time):
        if answer == SAME:
            yield AS_IT_WAS, name, size
            return
        path = self._folders[-1].path_of(name) if self._folders else self._path
        if self._folders:
            fd = opened(self._folders[-1], name, path)
        else:
            with telling(path):
                fd = os.open(path, TO_READ)
        if fd is None:
            yield SKIPPED, name, GONE
            return
        try:
            for item in self._content(fd, path, answer, name, mode, size, time):
                yield item
        finally:
            os.close(fd)

    def _content(self, fd, path, answer, name, mode, size, time):
        before = os.fstat(fd)
        if not size and _has_content(fd, path):
            if not self._folders:
                raise error(path, _UNKNOWN_SIZE)
            yield SKIPPED, name, _UNKNOWN_SIZE
            return
        tally, is_check = Tally(size), isinstance(answer, (tuple, list))
        sums = answer[1] if is_check else b'' if answer in _NUMBERS else answer
        blocks = iter([(KEEP,)]) if answer == KEPT else self._blocks(fd, path, before, sums, size, tally)
        ahead, is_same = _while_same(blocks, sums, size) if is_check else ([], False)
        if not is_same:
            yield FILE, name, mode, size
            yield TIME, time
            for item in itertools.chain(ahead, blocks):
                yield item
            yield SUM, Blob(b'' if answer == KEPT else tally.digest())
        after = os.fstat(fd)
        if not all(stat.S_ISREG(found.st_mode) and (found.st_size, time_of(found)) == (size, time)
                   for found in (before, after)):
            raise error(path, _CHANGED)
        yield (AS_IT_WAS, name, size) if is_same else (DONE,)

    def _blocks(self, fd, path, found, sums, size, tally):
        """
        Yield the items of the content of an open file.
        """
        has_holes, hole_end = found.st_blocks * 512 < size, 0
        for i, (position, count) in enumerate(blocks_of(size)):
            if position < hole_end:
                continue
            hole_end = hole_from(fd, position, count, size) if has_holes else 0
            if hole_end:
                tally.add(NO_DIGEST)
                yield HOLE, hole_end - position
                continue
            key = found.st_dev, found.st_ino, size, time_of(found), position
            with telling(path):
                block = self._load(key, functools.partial(read_at, fd, position, count))
            if len(block.data) != count:
                raise error(path, _CHANGED)
            tally.add(block.digest)
            if sums[i * DIGEST:(i + 1) * DIGEST] == block.digest:
                yield COPY, count
                continue
            for item in block.items(self._packs):
                yield item

    _KINDS = {FOLDER: _folder, UP: _up, FILE: _file, LINK: _link, SKIPPED: _skipped}


def _while_same(items, sums, size):
    """
    Take items of a file up to the first one that the other end does not have already. Return them,
    and whether it has all of them.
    """
    found, position, block = [], 0, block_size(size)
    for item in items:
        found.append(item)
        if item[0] not in (COPY, HOLE):
            return found, False
        first, position = position // block, position + item[1]
        there = sums[first * DIGEST:-(-position // block) * DIGEST]
        if item[0] == HOLE and there != NO_DIGEST * (-(-position // block) - first):
            return found, False
    return found, True


def _has_content(fd, path):
    """
    Tell whether a file that claims to be empty has content all the same, as files of /proc have.
    """
    with telling(path):
        return bool(read_at(fd, 0, 1))
