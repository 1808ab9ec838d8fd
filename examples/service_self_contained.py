"""
A service in this program, and children that use it.

The service says which files there are and hands them out. Children get nothing but the address of
this process; each fetches the files that it wants into a folder of its own.
"""

import logging
import os
import shutil
import tempfile

import mitogen
import mitogen.core
import mitogen.service

FILES = {
    u'motd': b'Welcome.\n',
    u'app.conf': b'[app]\nthreads = 4\n',
}

LOG = logging.getLogger('service_self_contained')


class Wardrobe(mitogen.service.Service):
    """
    Hands out what is in FILES.
    """

    def __init__(self, router):
        super(Wardrobe, self).__init__(router)
        self.asked = []

    # Children are not our parents, so every context must be allowed to call.
    # That is the reason to hand out only what is in FILES, and not what has
    # just any name.
    @mitogen.service.expose(policy=mitogen.service.AllowAny())
    def names(self):
        return sorted(FILES)

    @mitogen.service.expose(policy=mitogen.service.AllowAny())
    @mitogen.service.arg_spec({'name': mitogen.core.UnicodeType})
    def content(self, name, msg):
        """
        :param msg: The call itself; a parameter of this name is filled in by the pool.
        """
        self.asked.append(msg.src_id)
        if name not in FILES:
            raise mitogen.core.CallError('there is no %r', name)
        return mitogen.core.Blob(FILES[name])


def install(home, folder):
    """
    Fetch all files. Runs in the children.

    :param Context home: Where the service is.
    """
    for name in home.call_service(Wardrobe, 'names'):
        content = home.call_service(Wardrobe, 'content', name=name)
        with open(os.path.join(folder, name), 'wb') as fp:
            fp.write(content)

    try:
        home.call_service(Wardrobe, 'content', name=u'/etc/shadow')
    except mitogen.core.CallError as e:
        logging.getLogger('install').info('as expected: %s', e)
    return sorted(os.listdir(folder))


@mitogen.main()
def main(router):
    wardrobe = Wardrobe(router)
    pool = mitogen.service.Pool(router, services=[wardrobe], size=2)
    try:
        for context in router.local(name='first'), router.local(name='second'):
            folder = tempfile.mkdtemp()
            try:
                found = context.call(install, router.myself(), folder)
                for name in found:
                    with open(os.path.join(folder, name), 'rb') as fp:
                        assert fp.read() == FILES[name]
                LOG.info('%s has %s', context.name, ', '.join(found))
            finally:
                shutil.rmtree(folder)
        LOG.info('the service was asked for a file %d times', len(wardrobe.asked))
    finally:
        # Its threads would keep the program from ending.
        pool.stop()
