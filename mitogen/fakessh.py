# SPDX-License-Identifier: BSD-3-Clause
"""
Run a program that starts `ssh` by itself, such as rsync, so that its remote
end runs in a context that is connected already, by whatever method.

Three processes take part:

* the caller of :func:`run` starts the program, with a directory in front of
  its `PATH` that holds an `ssh` of ours;
* that `ssh` becomes a child context of the caller, by a socket that it
  inherits from the program. It keeps its standard files;
* the destination runs the command that `ssh` was given.

Between the last two, each end copies what its local source yields to a handle
of the other, which writes it to its local sink and acknowledges it, so that no
more than a window is ever on its way. Next to that, control messages are
tuples `(command, argument)`:

===========  ===================  ==========================================
command      sent by              argument
===========  ===================  ==========================================
``start``    `ssh`                its handles, `(control, data)`
``ack``      both                 how many bytes were written
``exit``     destination          exit status of the command
``exit``     `ssh`                None: the command is to be terminated
===========  ===================  ==========================================
"""
# !mitogen: minify_safe

from __future__ import absolute_import

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import mitogen
import mitogen.core
import mitogen.parent


LOG = mitogen.core.LazyLogger('mitogen.fakessh')

#: Bytes that may be on their way in each direction.
WINDOW_SIZE = 1048576

#: Exit status of OpenSSH when it, rather than the command, failed.
SSH_FAILED = 255

#: Options of OpenSSH, by whether they are followed by an argument.
OPTIONS_WITH_ARGUMENT = frozenset('BDEFIJLOPQRSWbceilmopw')
OPTIONS_ALONE = frozenset('1246ACGKMNTVXYafgknqstvxy')


class Error(mitogen.core.Error):
    """
    The `ssh` of ours cannot do what it is asked for.
    """
    pass


#
# Common to both ends.
#

def _start_thread(func, *args):
    thread = threading.Thread(target=func, args=args,
                              name='mitogen.fakessh.' + func.__name__)
    # It may read from a file that never ends.
    thread.daemon = True
    thread.start()
    return thread


def _blocking(func, fd, arg):
    """
    Call a function for a file that may be in either mode: whoever started us
    may have left it so.

    :raises OSError:
    """
    while True:
        try:
            return mitogen.core.io_op(func, fd, arg)[0]
        except OSError:
            if mitogen.core.get_blocking(fd):
                raise
            mitogen.core.set_blocking(fd, True)


def _write_all(fd, data):
    """
    Write all of `data`, and return true, or false if nobody reads it.
    """
    view = mitogen.core.BufferType(data, 0)
    while len(view):
        count = _blocking(os.write, fd, view)
        if count is None:
            return False
        view = view[count:]
    return True


class Endpoint(object):
    """
    One end of the connection.

    :param mitogen.core.Router router:
    :param mitogen.core.Context peer:
        The only context that is listened to.
    """
    def __init__(self, router, peer):
        self.peer = peer
        self._data = mitogen.core.Receiver(router, respondent=peer)
        self._control = mitogen.core.Receiver(router, respondent=peer)
        #: To be sent to the peer.
        self.handles = self._control.handle, self._data.handle
        self._peer_control = None
        self._peer_data = None
        self._lock = threading.Lock()
        self._room = mitogen.core.Latch()
        self._unacked = 0  # guarded by _lock

    def connect(self, handles):
        """
        Prepare to send to the peer.

        :param handles: what the peer has as `handles`.
        """
        self._peer_control, self._peer_data = [
            mitogen.core.Sender(self.peer, handle) for handle in handles]

    def send(self, command, arg):
        """
        Send a control message.
        """
        self._peer_control.send((mitogen.core.to_text(command), arg))

    def close(self):
        """
        Give up the handles. Threads that wait for something end.
        """
        self._room.close()
        self._control.close()
        self._data.close()

    def read_control(self):
        """
        Obey control messages until the peer is gone or :meth:`close`.
        """
        for msg in self._control:
            command, arg = msg.unpickle()
            func = getattr(self, '_on_%s' % (command,), None)
            if func is None:
                LOG.error('%r: unknown command %r', self.peer, command)
            else:
                func(arg)

    def _on_ack(self, size):
        with self._lock:
            was_full = self._unacked >= WINDOW_SIZE
            self._unacked -= size
            has_room = self._unacked < WINDOW_SIZE
        if was_full and has_room:
            self._room.put()

    def copy_source(self, fd):
        """
        Send what can be read from a file, to its end.
        """
        try:
            while True:
                data = _blocking(os.read, fd, mitogen.core.CHUNK_SIZE)
                if not data:
                    break
                with self._lock:
                    self._unacked += len(data)
                    is_full = self._unacked >= WINDOW_SIZE
                self._peer_data.send(data)
                if is_full:
                    self._room.get()
            self._peer_data.close()
        except mitogen.core.Error:
            # The peer is gone, or our broker.
            LOG.debug('%r: not everything was sent', self.peer)

    def copy_to_sink(self, fd):
        """
        Write what comes to a file, and close that at the end.
        """
        wanted = True
        try:
            for msg in self._data:
                data = msg.unpickle()
                # Acknowledged even when nobody reads it any more: the peer
                # goes on writing, like the other end of a real ssh.
                wanted = wanted and _write_all(fd, data)
                self.send('ack', len(data))
        except mitogen.core.Error:
            LOG.debug('%r: the broker has exited', self.peer)
        finally:
            os.close(fd)


#
# The destination.
#

class Slave(Endpoint):
    """
    The end that runs the command.

    :param str command_line:
        For a shell.
    """
    def __init__(self, router, peer, command_line):
        super(Slave, self).__init__(router, peer)
        self._command_line = command_line
        self._proc = None

    def serve(self):
        """
        Run the command once the peer says so. Returns when the peer is gone.
        """
        try:
            self.read_control()
        finally:
            self._terminate()
            self.close()

    def _on_start(self, handles):
        self.connect(handles)
        home = os.path.expanduser('~')
        options = {'start_new_session': True}
        if not mitogen.core.PY3:
            options = {'preexec_fn': os.setsid, 'close_fds': True}
        try:
            self._proc = mitogen.parent.popen(
                args=self._command_line,
                shell=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=home if os.path.isdir(home) else '/',
                **options
            )
        except Exception:
            LOG.exception('cannot run %r', self._command_line)
            self._peer_data.close()
            self._send_exit(SSH_FAILED)
            return
        _start_thread(self.copy_to_sink, os.dup(self._proc.stdin.fileno()))
        self._proc.stdin.close()
        _start_thread(self._run)

    def _send_exit(self, status):
        # Before, since the peer ends when it hears of it: that must not look
        # like the loss of a context that a thread waits for.
        self.close()
        self.send('exit', status)

    def _run(self):
        proc = self._proc
        try:
            self.copy_source(proc.stdout.fileno())
            status = proc.wait()
            LOG.debug('%r exited with %d', self._command_line, status)
            self._send_exit(status if status >= 0 else SSH_FAILED)
        except mitogen.core.Error:
            LOG.debug('the broker exited before %r', self._command_line)
        finally:
            proc.stdout.close()

    def _terminate(self):
        proc = self._proc
        if proc is not None and proc.poll() is None:
            try:
                os.killpg(proc.pid, signal.SIGTERM)
            except OSError:
                # Just now it ended by itself.
                LOG.debug('%r: %s', proc, sys.exc_info()[1])

    def _on_exit(self, _status):
        self._terminate()


@mitogen.core.takes_router
def _start_slave(src_id, command_line, router):
    """
    Prepare to run a command for another context.

    :returns: handles that the other context is to send to.
    """
    LOG.debug('context %d wants to run %r', src_id, command_line)
    slave = Slave(router, router.context_by_id(src_id), command_line)
    handles = slave.handles
    _start_thread(slave.serve)
    return handles


#
# The `ssh` of ours.
#

def _parse_args(argv):
    """
    Understand the arguments of OpenSSH.

    :returns:
        `(hostname, options, words of the command)`; options are pairs of a
        letter, and the argument or :data:`None`.
    :raises Error:
        They make no sense.
    """
    rest = list(argv)
    hostname = None
    options = []
    while rest:
        word = rest[0]
        if word == '--':
            del rest[0]
            if hostname is None and rest:
                hostname = rest.pop(0)
            break
        if len(word) > 1 and word[0] == '-':
            del rest[0]
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                value = None
                if letter in OPTIONS_WITH_ARGUMENT:
                    if not letters and not rest:
                        raise Error('option -%s needs an argument', letter)
                    value = letters or rest.pop(0)
                    letters = ''
                elif letter not in OPTIONS_ALONE:
                    raise Error('there is no option -%s', letter)
                options.append((letter, value))
        elif hostname is None:
            hostname = rest.pop(0)
        else:
            break
    if hostname is None:
        raise Error('no host name was given')
    return hostname, options, rest


class Master(Endpoint):
    """
    The end that stands for `ssh`.
    """
    #: Exit status of the command, once it has ended.
    status = None

    def _on_exit(self, status):
        self.status = status
        # Makes read_control() return.
        self._control.close()

    def run(self, handles):
        """
        Connect standard input and output to the command, and return its exit
        status.
        """
        self.connect(handles)
        self.send('start', self.handles)
        # So that the end of the output is seen when it comes.
        sink = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.close(null)
        writer = _start_thread(self.copy_to_sink, sink)
        _start_thread(self.copy_source, 0)
        self.read_control()
        if self.status is None:
            raise Error('the connection was lost')
        # All of the output came before the status.
        writer.join()
        return self.status


def _ssh(dest_context_id, econtext):
    hostname, options, words = _parse_args(sys.argv[1:])
    for letter, value in options:
        if letter == 's':
            raise Error('there are no subsystems here')
        LOG.debug('option ignored: -%s %s', letter, value)
    if not words:
        raise Error('no command was given for %s, and there is no terminal',
                    hostname)

    router = econtext.router
    dest = router.context_by_id(dest_context_id)
    chain = mitogen.parent.CallChain(dest)
    handles = chain.call(_start_slave, mitogen.context_id,
                         mitogen.core.to_text(' '.join(words)))
    return Master(router, dest).run(handles)


@mitogen.core.takes_econtext
def _fakessh_main(dest_context_id, econtext):
    """
    Do the work of our `ssh`, and end the process.
    """
    status = SSH_FAILED
    try:
        status = _ssh(dest_context_id, econtext)
    except mitogen.core.Error:
        # The user's terminal: the text may be that of the other side.
        text = mitogen.core._printable(str(sys.exc_info()[1]), u'  ')
        sys.stderr.write('ssh (mitogen): %s\n' % (
            mitogen.parent._native_str(text),))
        sys.stderr.flush()
    finally:
        # A broker that exits would have the process end by a signal.
        broker, protocol = econtext.broker, econtext.stream.protocol
        end = mitogen.core.now() + 3.0
        while mitogen.core.now() < end and \
                broker.defer_sync(protocol.pending_bytes):
            mitogen.core.time.sleep(0.01)
        os._exit(status & 255)


#
# The caller.
#

#: The program that the tool takes for ssh. Any path of an interpreter is right
#: in it, unlike behind a hashbang.
_WRAPPER = '''#!/bin/sh
exec %(python)s %(folder)s/start.py "$@"
'''

_START = '''
import os, sys
sys.path[:] = [path for path in sys.path if path != %(folder)r]
package = sys.modules['mitogen'] = type(sys)('mitogen')
package.__path__ = []
core = sys.modules['mitogen.core'] = package.core = type(sys)('mitogen.core')
core.__file__ = 'x/mitogen/core.py'
fp = open(%(folder)r + '/core.py', 'rb')
core._core_source = fp.read()
fp.close()
exec(compile(core._core_source, core.__file__, 'exec'), core.__dict__)
config = %(config)s
config['out_fd'] = os.dup(config['in_fd'])
core.ExternalContext(config).main()
'''


def _quoted(path):
    return "'%s'" % (path.replace("'", "'\\''"),)


def _make_config(router, context_id, fd, econtext):
    if mitogen.is_master:
        policy = router.responder.policy
    else:
        policy = econtext.importer.policy
    return {
        'context_id': context_id,
        'parent_ids': [mitogen.context_id] + list(mitogen.parent_ids),
        'version': tuple(mitogen.__version__),
        'in_fd': fd,
        'core_src_fd': None,
        'send_ec2': False,
        'setup_stdio': False,
        'debug': bool(getattr(router, 'debug', False)),
        'profiling': bool(getattr(router, 'profiling', False)),
        'unidirectional': bool(router.unidirectional),
        'max_message_size': int(router.max_message_size),
        'log_levels': mitogen.parent.get_log_levels(),
        'import_blocks': sorted(policy.blocks),
        'import_overrides': sorted(policy.overrides),
    }


def _write_program(folder, config):
    """
    Write our `ssh` to a directory, and return its path.
    """
    python = mitogen.parent.get_sys_executable()
    mitogen.parent._refuse_frozen([python])
    source = mitogen.core.get_core_source()
    if not isinstance(source, mitogen.core.BytesType):
        source = source.encode('utf-8')
    names = {
        'folder': folder,
        'config': mitogen.core.to_text(mitogen.parent._literal(config)),
    }
    wrapper = _WRAPPER % {
        'python': _quoted(python),
        'folder': _quoted(folder),
    }
    path = os.path.join(folder, 'ssh')
    for name, data in (('core.py', source), ('start.py', _START % names),
                       ('ssh', wrapper)):
        if not isinstance(data, mitogen.core.BytesType):
            data = data.encode('utf-8', 'surrogateescape')
        with open(os.path.join(folder, name), 'wb') as fp:
            fp.write(data)
    os.chmod(path, 0o755)
    return path


def _open_stream(router, context_id, sock):
    """
    Make a socket the stream to a child that is yet to come, and return its
    context.
    """
    stream = mitogen.parent.MitogenProtocol.build_stream(
        router, remote_id=context_id,
        # It acts for us: the destination obeys us, but not it.
        auth_id=mitogen.context_id,
        local_id=mitogen.context_id, parent_ids=mitogen.parent_ids)
    context = mitogen.parent.Context(router, context_id,
                                     u'fakessh.%d' % (context_id,))
    stream.name = context.name
    stream.accept(sock, sock)
    # It ends with the program, and that may outlive us.
    stream.receive_side.keep_alive = False
    router.register(context, stream)
    # Answers find the way to it.
    router.broker.defer_sync(
        lambda: router.route_monitor.notice_stream(stream))
    return context


def _on_answer(fakessh, answer):
    """
    End our `ssh`, if it has not come so far as to end by itself. Broker
    thread.
    """
    try:
        result = answer.get(block=False).unpickle(throw=False)
    except mitogen.core.Error:
        # It is gone, as it should be.
        return
    LOG.error('%r: %s', fakessh, result)
    fakessh.send(mitogen.core.Message(handle=mitogen.core.SHUTDOWN))


def _with_our_ssh(args, path):
    """
    Return the command line of a program that does not look for `ssh` by PATH:
    scp of OpenSSH has the path of its own, and its newer protocol needs a
    subsystem of the server, where there is none.

    :param path: of our `ssh`.
    """
    if os.path.basename(args[0]) not in ('scp', b'scp') or '-S' in args:
        return args
    more = ['-S', path]
    try:
        proc = mitogen.parent.popen(args=[args[0], '-O'], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        # Both tell how scp is used; one that does not know it also says so.
        if b' option -- ' not in proc.communicate()[0]:
            more.append('-O')
    except OSError:
        # The program is not there, as its start is about to say.
        pass
    return args[:1] + more + args[1:]


# A dispatcher fills these two in.
@mitogen.core.takes_router
@mitogen.core.takes_econtext
def run(dest, router, args,
        deadline=None,  # not used
        econtext=None):
    """
    Run a program here. The first time that it starts `ssh`, the command which
    that is given runs in `dest`, whatever host is named. Blocks; not on a
    broker thread.

    The caller must have authority over `dest`, as for any call there.

    :param mitogen.core.Context dest:
    :param mitogen.core.Router router:
    :param args:
        List of the program and its arguments. It has to find `ssh` by PATH;
        scp, which does not, is told of ours if it is the program itself.
    :param deadline:
        Not used.
    :param mitogen.core.ExternalContext econtext:
        Of a child; :data:`None` in a master.
    :returns:
        Exit status of the program, as from :mod:`subprocess`.
    :raises OSError:
        The program cannot be started.
    """
    if econtext is not None:
        mitogen.parent.upgrade_router(econtext)

    folder = tempfile.mkdtemp(prefix='mitogen_fakessh')
    context_id = router.allocate_id()
    ours, theirs = mitogen.parent.create_socketpair()
    fakessh = proc = None
    try:
        path = _write_program(folder, _make_config(
            router, context_id, theirs.fileno(), econtext))
        ours.setblocking(False)
        mitogen.core.set_cloexec(ours.fileno())
        fakessh = _open_stream(router, context_id, ours)
        # Waits in the socket until somebody is there.
        answer = fakessh.call_async(_fakessh_main, dest.context_id)
        answer.notify = lambda _: _on_answer(fakessh, answer)

        env = dict(os.environ)
        env['PATH'] = folder + ':' + env.get('PATH', os.defpath)
        env['ARGV0'] = mitogen.parent.get_sys_executable()
        env['SSH_PATH'] = path
        options = {'pass_fds': [theirs.fileno()]} if mitogen.core.PY3 else {}
        proc = mitogen.parent.popen(args=_with_our_ssh(list(args), path), env=env,
                                    **options)
        theirs.close()
        status = proc.wait()
        answer.close()
        return status
    finally:
        theirs.close()
        if proc is not None and proc.poll() is None:
            proc.terminate()
            proc.wait()
        if fakessh is None:
            ours.close()
        else:
            router.disconnect(fakessh)
        shutil.rmtree(folder, ignore_errors=True)
