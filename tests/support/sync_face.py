"""The sync client in the clothes of the async one: the contract of the SDK holds both faces with the same tests.

Each call is made in a thread, as a program without an event loop would make it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

from atoll.sdk.sync.client import Client

END: Any = object()


class Awaitable:
    """A noun whose methods are awaited; what they return with `with` is entered with `async with`."""

    def __init__(self, noun: object) -> None:
        self._noun = noun

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._noun, name)
        if name == "watch":
            return lambda *values, **named: _entered(method(*values, **named))
        return lambda *values, **named: asyncio.to_thread(method, *values, **named)


class SyncFace:
    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return Awaitable(getattr(self._client, name))


@contextlib.asynccontextmanager
async def _entered(manager: AbstractContextManager[Iterator[Any]]) -> AsyncIterator[AsyncIterator[Any]]:
    items = await asyncio.to_thread(manager.__enter__)
    try:
        yield _items(items)
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def _items(items: Iterator[Any]) -> AsyncIterator[Any]:
    while (item := await asyncio.to_thread(next, items, END)) is not END:
        yield item
