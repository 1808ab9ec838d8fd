"""
Two children talk to each other, and the program only introduces them.

Each child makes a receiver and sends the address of it, a sender, to the program, which hands it to
the other one. From then on the messages go from child to child; this process forwards them without
a look at them.
"""

import logging

import mitogen
import mitogen.core
import mitogen.select

LAST = 30

LOG = logging.getLogger('ping_pong')


@mitogen.core.takes_router
def play(begins, address_to, router):
    """
    Bounce a number, one more each time, until it is LAST. Runs in the children.

    :param bool begins: Serve, rather than wait for the first ball.
    :param Sender address_to: Where to send the address of our receiver, and then that of the other
        player's from.
    :returns: the numbers that were hit here.
    """
    hits = []
    with mitogen.core.Receiver(router) as balls:
        with mitogen.core.Receiver(router) as introduction:
            address_to.send((begins, balls.to_sender(), introduction.to_sender()))
            other = introduction.get().unpickle()

        number = -1
        while True:
            if hits or not begins:
                number = balls.get().unpickle()
            if number == LAST:
                # The other one has hit the last ball.
                return hits
            number += 1
            hits.append(number)
            logging.getLogger('ping_pong').info('%d', number)
            other.send(number)
            if number == LAST:
                return hits


@mitogen.main()
def main(router):
    players = [router.local(name='ping'), router.local(name='pong')]

    with mitogen.core.Receiver(router) as control:
        calls = [
            player.call_async(play, begins=(index == 0), address_to=control.to_sender())
            for index, player in enumerate(players)
        ]
        (_, balls_1, tell_1), (_, balls_2, tell_2) = [control.get().unpickle() for _ in players]
        tell_1.send(balls_2)
        tell_2.send(balls_1)

        # In the order in which they are done.
        for hits in mitogen.select.Select.all(calls):
            LOG.info('one player hit %d balls, from %d to %d', len(hits), hits[0], hits[-1])
