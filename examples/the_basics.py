"""
A tour: start a child, call functions in it, and move files there and back, in every way there is.
Then all of it again in a child of a child.
"""

import hashlib
import io
import logging
import os
import socket
import shutil
import tempfile

import mitogen.core
import mitogen.master
import mitogen.service
import mitogen.utils

LOG = logging.getLogger('the_basics')


# ---- what runs in the children. They fetch this file from us when it is needed first.

def describe():
    """
    Return a few facts about the process that this runs in.
    """
    return {'pid': os.getpid(), 'user': os.getuid(), 'host': socket.gethostname()}


def say(text):
    # Standard output of a child is no place for people to look at, so it becomes log records of its
    # parent.
    print(text)


def read_file(path):
    """
    Return the content of a file. As a Blob it does not end up in somebody's log.
    """
    with open(path, 'rb') as fp:
        return mitogen.core.Blob(fp.read())


def write_file(path, content):
    """
    Write a file and return its size.
    """
    with open(path, 'wb') as fp:
        fp.write(content)
    return os.path.getsize(path)


def fetch_file(context, source, target):
    """
    Write what the file service of another context sends to a file, piece by piece; return its size.
    """
    with open(target, 'wb') as fp:
        ok, metadata = mitogen.service.FileService.get(context, source, fp)
    if not ok:
        raise IOError('%s did not arrive completely' % (source,))
    assert metadata['size'] == os.path.getsize(target)
    return metadata['size']


def digest(path):
    with open(path, 'rb') as fp:
        return hashlib.sha256(fp.read()).hexdigest()


# ---- what runs here

def call_functions(context):
    # Anything that has a name in a module can be called, built-in or our own.
    LOG.info('process id: %d', context.call(os.getpid))
    LOG.info('facts: %r', context.call(describe))
    context.call(say, 'hello from %s' % (context.name,))

    # A call may go on in the background; the receiver is where its result will be.
    receiver = context.call_async(sum, [1, 2, 3])
    LOG.info('sum: %d', receiver.get().unpickle())

    try:
        context.call(open, '/no/such/file')
    except mitogen.core.CallError as e:
        # Text only, as the class may not exist here.
        LOG.info('as expected: %s', str(e).splitlines()[0])


def move_small_files(context, source, folder):
    # A function's argument and its result may be content of a file, if it fits in memory.
    there = os.path.join(folder, 'small.' + context.name)
    with open(source, 'rb') as fp:
        sent = context.call(write_file, there, mitogen.core.Blob(fp.read()))
    content = context.call(read_file, there)
    assert len(content) == sent == os.path.getsize(source)
    LOG.info('small file: %d bytes there, %d bytes back', sent, len(content))


def move_large_files(context, source, folder):
    # Upload: the child fetches from our service, which must be told what may be fetched.
    router = context.router
    service = mitogen.service.FileService(router)
    service.register(source)
    pool = mitogen.service.Pool(router, services=[service])
    there = os.path.join(folder, 'large.' + context.name)
    try:
        size = context.call(fetch_file, router.myself(), source, there)
    finally:
        pool.stop()

    # Download: the child's own service sends to us. It is loaded by the first call to it.
    context.call_service(mitogen.service.FileService, 'register', path=there)
    back = io.BytesIO()
    ok, metadata = mitogen.service.FileService.get(context, there, back)
    assert ok and metadata['size'] == len(back.getvalue()) == size
    assert hashlib.sha256(back.getvalue()).hexdigest() == context.call(digest, there) == digest(source)
    LOG.info('large file: %d bytes there, %d bytes back', size, len(back.getvalue()))


def tour(context):
    LOG.info('---- %s', context.name)
    folder = context.call(tempfile.mkdtemp)
    try:
        call_functions(context)
        move_small_files(context, __file__, folder)
        with tempfile.NamedTemporaryFile() as fp:
            for _ in range(50):
                fp.write(os.urandom(100000))
            fp.flush()
            move_large_files(context, fp.name, folder)
    finally:
        context.call(shutil.rmtree, folder)
    LOG.info('%s: success', context.name)


def main():
    mitogen.utils.log_to_file(level='INFO')

    # The broker is the thread that reads and writes, the router knows who is where. `with` ends
    # both.
    broker = mitogen.master.Broker()
    router = mitogen.master.Router(broker)
    with router:
        child = router.local(name='child')
        tour(child)
        grandchild = router.local(name='grandchild', via=child)
        tour(grandchild)

        # Ends by itself otherwise, when its parent does.
        grandchild.shutdown(wait=True)
        child.shutdown(wait=True)


# Children import this file too, and must not do all of this again. Without these lines they are not
# given it.
if __name__ == '__main__':
    main()
