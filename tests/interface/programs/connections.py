"""
A program with a connection method of its own: a tool that asks for a number on the terminal, and
then runs Python. Its router, contexts and chains of calls are its own, too.
"""

import logging
import os
import re
import sys
import tempfile
import threading
import time

import mitogen.core
import mitogen.master
import mitogen.parent
import mitogen.utils
from mitogen.core import CallError, ChannelError, Latch, Message, Receiver, Sender, listen

TOOL = u'''#!/bin/sh
echo welcome
echo "news: none" >&2
printf 'Number: ' > /dev/tty
read number < /dev/tty
if [ "$number" != 1234 ]; then
    echo "wrong number" > /dev/tty
    sleep 600
fi
exec "$@"
'''


class NumberError(mitogen.core.StreamError):
    pass


class TerminalProtocol(mitogen.parent.RegexProtocol):
    def _on_prompt(self, line, match):
        self.stream.conn.asked.append(match.group(0))
        self.stream.transmit_side.write(self.stream.conn.options.number.encode() + b'\n')

    def _on_wrong(self, line, match):
        self.stream.conn._fail_connection(NumberError('the number is wrong'))

    def _on_news(self, line, match):
        self.stream.conn.asked.append(match.group(1))

    PATTERNS = [(re.compile(b'^news: (.*)'), _on_news), (re.compile(b'wrong number'), _on_wrong)]
    PARTIAL_PATTERNS = [(re.compile(b'Number: ?$'), _on_prompt)]


class TerminalBootstrapProtocol(TerminalProtocol, mitogen.parent.BootstrapProtocol):
    PATTERNS = TerminalProtocol.PATTERNS + mitogen.parent.BootstrapProtocol.PATTERNS

    def on_line_received(self, line):
        if line.startswith(b'welcome'):
            self.stream.conn.asked.append(b'welcome')
        return super(TerminalBootstrapProtocol, self).on_line_received(line)


class Options(mitogen.parent.Options):
    tool = None

    def __init__(self, number=u'1234', tool=None, **kwargs):
        super(Options, self).__init__(**kwargs)
        self.number = number
        if tool:
            self.tool = tool


class Connection(mitogen.parent.Connection):
    options_class = Options
    diag_protocol_class = TerminalProtocol
    create_child = staticmethod(mitogen.parent.hybrid_tty_create_child)
    create_child_args = {'escalates_privilege': True}
    name_prefix = u'tool'
    eof_error_hint = 'ask the tool'

    def __init__(self, options, router):
        super(Connection, self).__init__(options, router)
        self.asked = []

    def _get_name(self):
        return u'tool.' + self.options.number

    def get_boot_command(self):
        return self.options.tool + super(Connection, self).get_boot_command()


class TerminalConnection(Connection):
    create_child = staticmethod(mitogen.parent.tty_create_child)
    create_child_args = {}
    stream_protocol_class = TerminalBootstrapProtocol


class Chain(mitogen.parent.CallChain):
    calls = []

    def call_async(self, fn, *args, **kwargs):
        self.calls.append(fn.__name__)
        return super(Chain, self).call_async(fn, *args, **kwargs)


class Context(mitogen.parent.Context):
    call_chain_class = Chain
    sent = 0

    def send(self, msg):
        self.sent += 1
        return super(Context, self).send(msg)


class Broker(mitogen.master.Broker):
    poller_class = mitogen.parent.POLLER_LIGHTWEIGHT
    shutdown_timeout = 4.5


class Router(mitogen.master.Router):
    broker_class = Broker
    context_class = Context
    max_message_size = 1048576

    def tool(self, **kwargs):
        return self._connect(Connection, **kwargs)

    def terminal(self, **kwargs):
        return self._connect(TerminalConnection, **kwargs)


def identity(value):
    return value


def fail(text):
    raise ValueError(text)


def say():
    logging.getLogger('some.name').warning('count to %d', 3)
    logging.getLogger('some.name').debug('not shown')
    sys.stdout.write(u'printed\n')
    sys.stdout.flush()


@mitogen.core.takes_econtext
def about(econtext):
    return (type(econtext.router).__module__, mitogen.parent_ids, mitogen.context_id, mitogen.is_master,
            econtext.router.max_message_size, hasattr(econtext, 'reserve_tty_fp'), sys.argv)


@mitogen.core.takes_router
def call_brother(context_id, router):
    context = router.context_by_id(context_id)
    return context.send_await(Message.pickled(
        (None, u'time', None, u'sleep', (600,), mitogen.core.Kwargs({})), handle=mitogen.core.CALL_FUNCTION))


def error_of(func, *args, **kwargs):
    try:
        return func(*args, **kwargs)
    except mitogen.core.Error as error:
        return error


def connect(router):
    context = router.tool(name=None)
    conn = router.stream_by_id(context.context_id).conn
    print(context.name, conn.asked, conn.proc.name, type(conn.stderr_stream.protocol).__name__)
    print(context.call(about))
    terminal = router.terminal(name=u'terminal')
    conn = router.stream_by_id(terminal.context_id).conn
    print(terminal.name, sorted(set(conn.asked)), conn.stderr_stream, terminal.call(about)[5])
    # All bytes pass.
    data = bytes(bytearray(range(256))) * 500
    print(terminal.call(identity, data) == data)
    below = router.local(via=terminal, name=u'below')
    print(below.name, below.via is terminal, type(below).__name__, below.call(about)[1:3])
    return context, below


def fail_to_connect(router, below):
    for method, options in (
        (router.tool, {'number': u'99'}), (router.terminal, {'number': u'99'}), (router.tool, {'tool': ['/bin/false']}),
        (router.tool, {'tool': ['/nothing/there']}), (router.local, {'python_path': '/bin/false'}),
        (router.local, {'python_path': '/nothing/there'}), (router.local, {'via': below, 'python_path': '/nothing/there'}),
        (router.local, {'via': below, 'bogus': 1}),
    ):
        error = error_of(method, **options)
        text = error.args[0]
        kind = [cls.__name__ for cls in (NumberError, mitogen.parent.EofError, CallError, mitogen.core.StreamError)
                if isinstance(error, cls)][0]
        print(kind, text.startswith('Child start failed: [Errno 2]'), text.startswith(Connection.eof_error_msg),
              text.startswith('error occurred on host '), text.endswith('ask the tool'))
    for options in {'remote_name': 'a/b'}, {'bogus': 1}:
        try:
            router.local(**options)
        except (ValueError, TypeError) as error:
            print(type(error).__name__)


def call(router, context):
    print(context.sent > 0, Chain.calls)
    for value in None, True, 2 ** 70, 1.5, u'\u2603', b'\xff', [(1, {b'a': u'b'})], mitogen.core.Blob(b'x'), mitogen.core.Secret(u's'):
        result = context.call(identity, value)
        print(result == value, type(result) is type(value), repr(result).encode('ascii', 'replace'))
    print(context.call(identity, context) is context)
    print(error_of(context.call, identity, slice(1)).args[0].splitlines()[0])
    print(error_of(context.call, slice, 1))
    print(error_of(context.call, fail, u'text').args[0].splitlines()[0])
    print(error_of(context.call, identity, b'x' * 1048577).args[0] == router.too_large_msg % 1048576)
    with Chain(context, pipelined=True) as chain:
        chain.call_no_reply(fail, u'first')
        errors = [error_of(chain.call, identity, number) for number in (1, 2)]
        print(errors[0].args == errors[1].args, context.call(identity, 3))
    print(chain.call(identity, 4))
    for func, text in (lambda: 1, 'lambda_msg'), (context.call, 'method_msg'):
        try:
            context.call(func)
        except TypeError as error:
            print(error.args[0] == getattr(mitogen.parent.CallChain, text))


def listen_to(router, context):
    records = Latch()
    handler = logging.Handler()
    handler.emit = lambda record: records.put(record) if record.name.endswith(u'.[talker]') else None
    logging.getLogger().addHandler(handler)
    talker = router.local(name='talker')
    talker.call(say)
    for record in sorted((records.get(timeout=20) for _ in range(2)), key=lambda record: record.name):
        print(record.name, record.levelname, record.getMessage(), record.mitogen_name, record.mitogen_context is talker)
    logging.getLogger().removeHandler(handler)

    with Receiver(router) as receiver:
        sender = receiver.to_sender()
        print(type(sender).__name__, talker.call(identity, sender).dst_handle == receiver.handle)
        Sender(router.myself(), receiver.handle).send([1, 2])
        print(receiver.get(timeout=10).unpickle())
        sender.close()
        print([error_of(receiver.get).args[0] == Sender.explicit_close_msg])
    print(error_of(receiver.get).args[0] == Receiver.closed_msg)
    print(error_of(talker.send_await, Message(handle=12345)).args[0] == router.invalid_handle_msg)
    print(error_of(Context(router, 4444).call, identity, 1).args[0] == router.no_route_msg % (4444, 0))


def end(router, context):
    heard = Latch()
    conn = router.stream_by_id(context.context_id).conn
    listen(conn.proc, 'exit', lambda: heard.put('exit'))
    ended = Latch()
    listen(context, 'disconnect', ended.put)
    brother = router.local()
    router.stream_by_id(context.context_id).protocol.auth_id = mitogen.context_id
    waiting = context.call_async(call_brother, brother.context_id)
    while not router.stream_by_id(context.context_id).protocol.egress_ids.issuperset([brother.context_id]):
        pass
    print(brother.shutdown().get(timeout=20))
    print(error_of(waiting.get(timeout=20).unpickle).args[0].splitlines()[0].split(':')[0])
    waiting = context.call_async(time.sleep, 600)
    context.shutdown(wait=True)
    print(ended.get(timeout=10), heard.get(timeout=20), conn.proc.poll() is not None)
    error = error_of(waiting.get)
    print(type(error) is ChannelError, error.args[0] == router.respondent_disconnect_msg)
    print(router.stream_by_id(context.context_id), mitogen.parent.returncode_to_str(-9))


def main():
    with tempfile.NamedTemporaryFile('w', suffix='.sh') as fp:
        fp.write(TOOL)
        fp.flush()
        os.chmod(fp.name, 0o755)
        # By way of the shell: the file is still open.
        Options.tool = ['/bin/sh', fp.name]
        with Router() as router:
            print(type(router.broker).__name__, router.broker.shutdown_timeout)
            context, below = connect(router)
            fail_to_connect(router, below)
            call(router, context)
            listen_to(router, context)
            end(router, context)
    print(router.broker._thread.is_alive())
    print(sorted(set(thread.name for thread in threading.enumerate())))


if __name__ == '__main__':
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger('mitogen').propagate = False
    logging.getLogger('mitogen').addHandler(logging.NullHandler())
    main()
