"""The nearest thing to a context that execnet has: a gateway with a channel to a loop that runs
requests.

The far side of an execnet gateway is given source text, so the loop is text here. Far names are
looked up in the remote module, whose text is sent in front.
"""

import inspect

import remote

LOOP = '''
while True:
    request = channel.receive()
    if request is None:
        break
    name, args = request
    channel.send(globals()[name](*args))
'''

FLOW = '''
import os
block = os.urandom(channel.receive())
while True:
    request = channel.receive()
    if request is None:
        break
    direction, count = request
    if direction == 'out':
        for _ in range(count):
            channel.send(block)
    else:
        for _ in range(count):
            channel.receive()
        channel.send(count)
'''


class GatewayChild(object):
    """A popen gateway and a channel to the request loop in it."""

    def __init__(self, group, spec='popen', loop=LOOP):
        self.gateway = group.makegateway(spec)
        self.channel = self.gateway.remote_exec(inspect.getsource(remote) + loop)

    def post(self, name, *args):
        """Send a request; the answer is to be read with self.channel.receive()."""
        self.channel.send((name, args))

    def call(self, name, *args):
        self.channel.send((name, args))
        return self.channel.receive()

    def close(self):
        self.channel.send(None)
        self.gateway.exit()


def group():
    """A new group of gateways; terminate_all() ends it."""
    import execnet
    return execnet.Group()


def end(gateways):
    gateways.terminate(timeout=2.0)
