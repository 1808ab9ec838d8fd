"""
Installs an application on a host, by functions of this script that are called there.

    python examples/install_app.py <hostname> [--via BASTION] [--sudo USER] [--prefix FOLDER]
    [--archive FILE] [--dry-run]

The way to the host may be long: ssh(1) to a bastion, from there to the host, and there sudo(8) to
the user that owns the folder. With a shell that is three levels of quoting. Here each step is a
context that the next is started from, and what is called in the last one neither knows nor cares.

The calls are made by a pipelined chain: each is sent at once, without waiting for the one before,
and when one fails those behind it do not run. The archive is fetched by the host from a service of
this process.
"""

from __future__ import print_function

import logging
import os
import subprocess
import sys
import tempfile

import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.service


# ---- what runs on the host

def describe(prefix):
    """
    Return (name of the host, name of the user, names in the folder or None if it is not there).
    """
    import getpass
    import socket
    found = sorted(os.listdir(prefix)) if os.path.isdir(prefix) else None
    return socket.gethostname(), getpass.getuser(), found


def make_release(release):
    """
    Make the folder of a release, which must not be there.
    """
    parent = os.path.dirname(release)
    if not os.path.isdir(parent):
        os.makedirs(parent)
    os.mkdir(release)


def fetch(server, source, target):
    """
    Bring a file from another context here.
    """
    with open(target, 'wb') as fp:
        ok, _ = mitogen.service.FileService.get(server, source, fp)
    if not ok:
        raise IOError('%s did not arrive whole' % (source,))


def unpack(archive, folder):
    proc = subprocess.Popen(['tar', 'xzf', archive, '-C', folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = proc.communicate()
    if proc.returncode:
        raise ValueError('cannot unpack %s: %s' % (archive, output.decode('utf-8', 'replace').strip()))
    os.unlink(archive)


def switch(release, link):
    """
    Have a symbolic link lead to a release. At no moment is there none.
    """
    new = link + '.new'
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(os.path.basename(release), new)
    os.rename(new, link)


def remove(folder):
    import shutil
    shutil.rmtree(folder, ignore_errors=True)


# ---- what runs here

def make_sample(path):
    """
    Write an archive of an application that does very little.
    """
    import io
    import tarfile
    script = b'#!/bin/sh\necho "hello from `id -un`"\n'
    with tarfile.open(path, 'w:gz') as tar:
        member = tarfile.TarInfo('bin/hello')
        member.size, member.mode = len(script), 0o755
        tar.addfile(member, io.BytesIO(script))


def connect(router, options):
    """
    Return the context at the end of the way to the host; print each step.
    """
    context = None
    for name in [options.via, options.hostname]:
        if name is None:
            continue
        kwargs = {'via': context, 'python_path': options.python}
        if name == 'localhost':
            context = router.local(**kwargs)
        else:
            # The configuration is a file of this host, so it is for the first step only.
            if options.ssh_config and context is None:
                kwargs['ssh_args'] = ['-F', options.ssh_config]
            user, _, hostname = name.rpartition('@')
            context = router.ssh(hostname=hostname, username=user or None, **kwargs)
        print('connected: %s' % (context.name,))
    if options.sudo:
        context = router.sudo(username=options.sudo, via=context, python_path=options.python)
        print('connected: %s' % (context.name,))
    return context


def install(router, context, archive, options):
    """
    Return the exit status of the program.
    """
    prefix = options.prefix
    name = os.path.basename(archive).split('.tar')[0].replace('.tgz', '')
    release = os.path.join(prefix, name)
    packed = os.path.join(release, os.path.basename(archive))
    link = os.path.join(prefix, 'current')

    host, user, found = context.call(describe, prefix)
    print('on %s as %s; %s has: %s' % (host, user, prefix, 'nothing' if not found else ', '.join(found)))
    if name in (found or ()):
        print('%s is installed already' % (name,))
        return 0

    steps = [
        (make_release, (release,)),
        (fetch, (router.myself(), archive, packed)),
        (unpack, (packed, release)),
        (switch, (release, link)),
    ]
    for func, args in steps:  # what is called below, for people
        print('%s: %s(%s)' % (
            'would call' if options.dry_run else 'call', func.__name__, ', '.join(map(str, args))))
    if options.dry_run:
        return 0

    try:
        with mitogen.parent.CallChain(context, pipelined=True) as chain:
            chain.call_no_reply(make_release, release)
            chain.call_no_reply(fetch, router.myself(), archive, packed)
            chain.call_no_reply(unpack, packed, release)
            chain.call_no_reply(switch, release, link)
            # The first answer that is waited for. If any step has failed, it is that one's error.
            _, _, found = chain.call(describe, prefix)
    except mitogen.core.CallError as error:
        print('failed: %s' % (str(error).splitlines()[0],), file=sys.stderr)
        context.call(remove, release)
        return 1
    print('installed; %s has: %s' % (prefix, ', '.join(found)))
    return 0


def parse_args():
    import argparse
    parser = argparse.ArgumentParser(description='Install an application on a host.')
    parser.add_argument('hostname', help='[user@]name for ssh, or localhost')
    parser.add_argument('--via', metavar='BASTION', help='[user@]name of the host to connect from')
    parser.add_argument('--sudo', metavar='USER', help='user to install as')
    parser.add_argument('--prefix', default='/opt/sample', help='folder to install in (default: /opt/sample)')
    parser.add_argument('--archive', help='file, .tar.gz (default: a sample, made on the spot)')
    parser.add_argument('--dry-run', action='store_true', help='connect, look, say what would be done, and do nothing')
    parser.add_argument('--python', default='python3', help='name of the interpreter there (default: python3)')
    parser.add_argument('--ssh-config', help='file to use instead of ~/.ssh/config')
    if len(sys.argv) < 2:
        parser.print_help()
        sys.exit(1)
    return parser.parse_args()


def main():
    options = parse_args()
    logging.basicConfig(level=logging.WARNING)
    folder = tempfile.mkdtemp()
    try:
        archive = options.archive and os.path.abspath(options.archive)
        if archive is None:
            archive = os.path.join(folder, 'sample-1.0.tar.gz')
            make_sample(archive)
        with mitogen.master.Router() as router:
            # Nothing else can be fetched from here.
            service = mitogen.service.FileService(router)
            service.register(archive)
            pool = mitogen.service.Pool(router, services=[service])
            try:
                return install(router, connect(router, options), archive, options)
            except mitogen.core.StreamError as error:
                # The lines after it are about the command line.
                print('cannot connect: %s' % (str(error).partition('\nContext ')[0],), file=sys.stderr)
                return 1
            finally:
                pool.stop()
    finally:
        remove(folder)


if __name__ == '__main__':
    sys.exit(main())
