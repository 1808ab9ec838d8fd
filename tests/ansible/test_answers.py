"""
Answers of a host are read without trust.
"""

import marshal

import pytest

from mitogen.ansible import answers

pytestmark = pytest.mark.once

ANSWERS = [
    ('done', 0, b'out', b''), ('done', -9, b'\xff\0' * 1000, b'err'), ('fail', 'start', u'text \u20ac \udc80'),
    ('prompt', b'Password:'), ('unknown',),
]


@pytest.mark.parametrize('answer', ANSWERS, ids=repr)
def test_an_answer_is_read_as_it_was_sent(answer):
    assert answers.read(marshal.dumps(answer, 2)) == answer


@pytest.mark.parametrize('value', [
    5, (), None, ('done',), ('done', 0, b''), ('done', b'', b'', b''), ('fail', b'x', 'y'), ('other', 1), (1, 2), ['done', 0],
    ('prompt', ('deep',)), ('prompt', compile('1', '', 'exec')), ('done', 2 ** 40, b'', b''), ('unknown',) * 9,
], ids=lambda value: repr(value)[:20])
def test_what_has_another_shape_is_refused(value):
    with pytest.raises(answers.DamagedError):
        answers.read(marshal.dumps(value, 2))


def test_bytes_that_are_no_answer_are_refused():
    whole = marshal.dumps(ANSWERS[1], 2)
    for data in [b'', whole + b'N', whole.replace(b'\xd0\x07', b'\xff\xff', 1), b'(' + b'\xff' * 4, b'(\1\0\0\0u\xff\xff\xff\xff',
                 b'(\1\0\0\0u\1\0\0\0\xff'] + [whole[:i] for i in range(0, len(whole), 7)]:
        with pytest.raises(answers.DamagedError):
            answers.read(data)
