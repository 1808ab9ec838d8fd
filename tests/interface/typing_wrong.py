"""
A program that a type checker refuses, at each line that says so.
"""

import asyncio
from collections.abc import Iterator

import mitogen


def gather(path: str, *, deep: bool = False) -> int:
    return len(path)


def follow(path: str) -> Iterator[bytes]:
    yield path.encode()


async def main(host: mitogen.aio.Host) -> None:
    await host.call(gather)  # wrong
    await host.call(gather, 5)  # wrong
    text: str = await host.call(gather, 'x')  # wrong
    print(text, await host.call(gather, 'x', deep=True))
    async for item in host.stream(follow, 'x'):
        item.encode()  # wrong
        item.decode()
    host.stream(follow, 5)  # wrong


with mitogen.connect() as host:
    host.call(gather)  # wrong
    host.call(gather, 5)  # wrong
    host.call(gather, 'x', depth=1)  # wrong
    host.submit(gather, 'x', deep='yes')  # wrong
    one: str = host.call(gather, 'x')  # wrong
    two: str = host.submit(gather, 'x').result()  # wrong
    host.stream(gather, 'x')  # wrong
    host.options(timeout=1).call(gather, 1)  # wrong
    host.options(timeout='long')  # wrong
    host.options(tiemout=1)  # wrong
    host.info.pid.upper()  # wrong
    for item in host.stream(follow, 'x'):
        item.encode()  # wrong
        item.decode()
    host.run(['true']).returncode.upper()  # wrong
    host.put('here')  # wrong
    good: int = host.call(gather, 'x', deep=True)
asyncio.run(main(mitogen.aio.Host(host)))
