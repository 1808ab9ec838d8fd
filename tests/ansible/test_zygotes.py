"""
The hub gives a user's zygote no further work once the files have changed that tell what a user is.
"""

import marshal
import queue
import sys

import pytest

import testlib
from mitogen.ansible import answers, hub, target

pytestmark = pytest.mark.once


class Zygotes(object):
    """
    A hub whose zygotes tell which process they are.
    """

    def __init__(self):
        self.hub, self.number = hub.Hub(target.zygote_source()), 0

    def start(self, key, command):
        """
        Return a function that waits for what a shell prints.
        """
        found = queue.SimpleQueue()
        frame = marshal.dumps(('command', ['/bin/sh', '-c', command], b'', ''), hub.MARSHAL)
        self.number += 1
        self.hub.request(found.put, key, ([sys.executable, '-c', hub.BOOT], False), self.number, frame)

        def wait():
            answer = ('prompt',)
            while answer[0] == 'prompt':
                answer = answers.read(found.get(timeout=60))
            return answer
        return wait

    def which(self, key):
        word, status, out, err = self.start(key, 'echo $PPID')()
        assert (word, status, err) == ('done', 0, b'')
        return int(out)


@pytest.fixture
def zygotes(tmp_path, monkeypatch):
    (tmp_path / 'group').write_text('one')
    monkeypatch.setattr(hub, 'ABOUT_USERS', (str(tmp_path / 'group'), str(tmp_path / 'absent')))
    made = Zygotes()
    yield made
    made.hub.close()
    testlib.wait_for(lambda: not made.hub.zygotes and not made.hub.retired)


def test_a_zygote_of_a_user_is_another_one_after_a_change(zygotes, tmp_path):
    login, user = ' python', 'user python'
    first = zygotes.which(login), zygotes.which(user)
    assert (zygotes.which(login), zygotes.which(user)) == first
    (tmp_path / 'group').write_text('one two')
    assert zygotes.which(login) == first[0]
    second = zygotes.which(user)
    assert second != first[1] and zygotes.which(user) == second
    testlib.wait_for_end(first[1])
    (tmp_path / 'absent').write_text('')
    assert zygotes.which(user) not in (first[1], second)


def test_what_a_user_runs_goes_on_after_a_change(zygotes, tmp_path):
    user, go = 'user python', tmp_path / 'go'
    first = zygotes.which(user)
    wait = zygotes.start(user, 'while ! test -e "%s"; do sleep 0.02; done; echo $PPID' % (go,))
    given_up = zygotes.start(user, 'sleep 600')
    number = zygotes.number
    (tmp_path / 'group').write_text('one two')
    assert zygotes.which(user) != first
    # Its number is found among the old one's.
    zygotes.hub.cancel(user, number)
    assert testlib.is_running(first)
    go.write_text('')
    assert wait() == ('done', 0, b'%d\n' % (first,), b'')
    testlib.wait_for_end(first)
    assert given_up is not None
