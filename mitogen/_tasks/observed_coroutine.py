# SPDX-License-Identifier: BSD-3-Clause
"""
Observed coroutines. They are not in :mod:`mitogen._tasks.observed`, since Python 2 cannot parse
them.
"""
# !mitogen: minify_safe

import contextlib


async def run(managers, func, args, kwargs):
    """
    Await what a coroutine function returns, within the context managers, which so are of the same
    asyncio task.
    """
    with contextlib.ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        return await func(*args, **kwargs)
