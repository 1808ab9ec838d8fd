"""
Functions by which each process of a tree tells who it is, and the service that its master offers to
everybody.
"""

import hashlib
import logging
import os

import mitogen
import mitogen.core
import mitogen.service
from mitogen.core import takes_router


class Desk(mitogen.service.Service):
    """
    Counts the orders that it took, which only the master's own side may give.
    """
    orders = 0

    @mitogen.service.expose(mitogen.service.AllowAny())
    def receipt(self, token, msg):
        return os.getpid(), msg.src_id, token

    @mitogen.service.expose(mitogen.service.AllowAny())
    def large(self):
        return b'x' * 100000

    @mitogen.service.expose(mitogen.service.AllowParents())
    def order(self):
        self.orders += 1


#: Values that calls have noted in this process.
noted = []


def note(value):
    noted.append(value)


def state():
    return list(noted)


def who(token):
    return os.getpid(), mitogen.context_id, token


@takes_router
def ask_desk(context_id, token, router):
    """
    Return what the desk of another context answers.
    """
    return router.context_by_id(context_id).call_service(u'whole_tree.Desk', u'receipt', token=token)


@takes_router
def ask_who(context_id, token, router):
    """
    Return what another context says of itself, if it obeys this one.
    """
    return router.context_by_id(context_id).call(who, token)


class Digest(object):
    def __init__(self):
        self.sha = hashlib.sha256()

    def write(self, data):
        self.sha.update(data)


@takes_router
def fetch(context_id, path, router):
    """
    Return whether a file came, and its digest.
    """
    digest = Digest()
    ok, _ = mitogen.service.FileService.get(router.context_by_id(context_id), path, digest)
    return ok, digest.sha.hexdigest()


def log(text):
    logging.getLogger('honest').error(text)
