"""Where the sync face of the SDK runs: one event loop in one thread, shared by every sync client of the process.

A call from any thread waits for its answer; when the waiting is interrupted, the call is given up. Callbacks run in
that thread, so they may not call back into a sync client: that is refused rather than waited for without end.
"""

import asyncio
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")
Item = TypeVar("Item")
END: Any = object()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="atoll client", daemon=True).start()
    return loop


def wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which runs in the shared loop. Raises what it raises."""
    if _running_loop() is _loop():
        work.close()
        raise RuntimeError("a callback of the sync client cannot call it: its answer would never come")
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def iterate(items: AsyncGenerator[Item, None]) -> Generator[Item, None, None]:
    """The items as they come. Closing it early closes `items`, soon: an interpreter that ends does not wait for it."""
    try:
        while (item := wait_for(_next(items))) is not END:
            yield item
    finally:
        asyncio.run_coroutine_threadsafe(_close(items), _loop())


@contextmanager
def entered(manager: AbstractAsyncContextManager[AsyncIterator[Item]]) -> Iterator[Iterator[Item]]:
    """`with entered(client.watch()) as items`."""
    items = wait_for(_enter(manager))
    try:
        yield iter(lambda: wait_for(_next(items)), END)
    finally:
        wait_for(_leave(manager))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _next(items: AsyncIterator[Item]) -> Item:
    return await anext(items, END)


async def _enter(manager: AbstractAsyncContextManager[Result]) -> Result:
    return await manager.__aenter__()


async def _leave(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()
