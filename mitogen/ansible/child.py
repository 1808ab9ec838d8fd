# SPDX-License-Identifier: BSD-3-Clause
"""
The child of a zygote that runs a module of Ansible. A part of the text of a zygote; see
`zygote.py`.
"""

import atexit
import os
import signal
import sys
import threading
import time
import types

from mitogen.ansible.importing import RESPAWN, is_ours


class Child(object):
    """
    :param zygote: whose child this is, after the fork.
    :param call: how the module is run: see :func:`begin_module`.
    :param dict environ: variables to add.
    :param str folder: to run in, empty for the zygote's.
    """
    must_drop = None
    #: For the archive, if the zygote has made one. It outlives a module that is killed.
    place = None

    def __init__(self, zygote, payload, call, environ, folder):
        self.zygote, self.payload, self.call, self.environ, self.folder = zygote, payload, call, environ, folder

    def live(self, out_w, err_w, new_w, theirs, prepare=None):
        """
        Run the module with these files as its output, and end.

        :param new_w: file to write the names of what the module imported to, or None.
        :param list theirs: the zygote's ends of these files.
        :param prepare: called before the module is run.
        """
        status = 1
        try:
            try:
                os.setsid()
                self.let_go(theirs)
                os.dup2(out_w, 1)
                os.dup2(err_w, 2)
                os.close(out_w)
                os.close(err_w)
                own = os.getpid()
                # Not for each child: to count references is to copy memory.
                before = None if new_w is None else set(sys.modules)
                if prepare is not None:
                    prepare()
                if new_w is not None:
                    # A module may leave a process that lives on.
                    os.register_at_fork(after_in_child=lambda held=[new_w]: held and os.close(held.pop()))
                status = leave(self.run())
                if new_w is not None and os.getpid() == own:
                    new = [name for name in sys.modules if name not in before]
                    os.write(new_w, ' '.join(new).encode()[:60000])
            except BaseException:
                import traceback
                os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def let_go(self, theirs):
        """
        Close the zygote's files, and undo its changes.
        """
        for fd in [self.zygote.infd, self.zygote.outfd] + theirs + list(self.zygote.by_file):
            try:
                os.close(fd)
            except OSError:
                # One of the job's own is in no list yet.
                pass
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        atexit._clear()
        # This module is what `__main__` was, and must outlive its name.
        self.keep = sys.modules['__main__']

    def run(self):
        """
        Run the module, and return the status that an interpreter would end with.
        """
        os.environ.update(self.environ)
        if 'TZ' in self.environ:
            time.tzset()
        if self.folder:
            os.chdir(self.folder)
        folder = self.write_archive() if self.payload.needs_archive else None
        if self.drops_others():
            self.drop_others()
        self.zygote.finder.payload = self.payload
        sys.argv = list(self.call.get('argv', ['']))
        main = sys.modules['__main__'] = types.ModuleType('__main__')
        main.__loader__ = None
        try:
            begin_module(self.payload, self.call)
        except SystemExit as error:
            return exit_code(error)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            if folder:
                import shutil
                shutil.rmtree(folder, ignore_errors=True)
        return 1

    def write_archive(self):
        """
        Write the archive where the module looks for it. Return its folder.
        """
        folder = self.place or self.make_place()
        self.payload.write(folder)
        module = sys.modules.get(RESPAWN)
        if module is not None and RESPAWN in self.payload.modules:
            # Functions that others hold already find the new place, too.
            module.__file__ = module.__spec__.loader.get_filename(RESPAWN)
            exec(self.payload.code(RESPAWN), module.__dict__)
        return folder

    def make_place(self):
        """
        Make a folder for the archive, and return its path.
        """
        import tempfile
        return os.path.realpath(tempfile.mkdtemp(prefix='ansible_%s_payload_' % (self.payload.name,)))

    def drops_others(self):
        """
        Return whether the zygote has code of texts that are not in this payload. Asked before the
        fork for the first time, since the child would copy memory to find out.
        """
        if self.must_drop is None:
            modules = self.payload.modules
            self.must_drop = any(modules.get(name, (None, digest))[1] != digest
                                 for name, digest in self.zygote.loaded.items())
        return self.must_drop

    def drop_others(self):
        """
        Forget that code.
        """
        for name in list(sys.modules):
            if is_ours(name):
                del sys.modules[name]


def begin_module(payload, call):
    """
    Do as the wrapper of a module does once it has unpacked itself.
    """
    try:
        os.getcwd()
    except OSError:
        try:
            os.chdir(os.path.expanduser('~'))
        except OSError:
            os.chdir('/')
    limit_files(call.get('files'))
    sys.path[:] = [payload.path] + [path for path in sys.path if path not in ('', '.')]
    if call['way'] == 'loader':
        arguments = dict(call['arguments'], modlib_path=payload.path)
        sys.modules[call['loader']].run_module(**arguments)
        return
    import runpy
    sys.modules['ansible.module_utils.basic']._ANSIBLE_ARGS = call['params']
    runpy.run_module(
        call['module'], init_globals={'_module_fqn': call['module'], '_modlib_path': payload.path},
        run_name='__main__', alter_sys=True)
    print('{"msg": "New-style module did not handle its own exit", "failed": true}')
    sys.exit(1)


def limit_files(wanted):
    """
    Set the limit of open files to what the configuration of Ansible says.
    """
    if not wanted:
        return
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted), hard))
    except ValueError:
        pass


def exit_code(error):
    """
    Return the status that an interpreter ends with for this SystemExit.
    """
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 255
    sys.stderr.write('%s\n' % (error.code,))
    return 1


def leave(status):
    """
    Do what an interpreter does as it ends: wait for threads, call the functions of atexit, and
    write buffered output.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in sys.stdout, sys.stderr:
        try:
            stream.flush()
        except (AttributeError, ValueError):
            # Closed, or replaced, by the module.
            pass
        except OSError:
            status = 120
    return status
