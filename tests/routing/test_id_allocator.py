"""
The ids that a master hands out.
"""


def test_ids(router):
    allocator = router.id_allocator
    assert repr(allocator) == 'IdAllocator(%r)' % (router,)
    assert router.local().context_id == 1
    assert allocator.allocate_block() == (2, 1002)
    assert allocator.allocate() == 1002


def test_a_child_takes_a_block(router):
    context = router.local()
    assert router.local(via=context).context_id == 2
    assert router.local(via=context).context_id == 3
    assert router.local().context_id == 1002
