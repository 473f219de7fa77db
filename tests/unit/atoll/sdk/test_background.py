"""The thread that the sync face runs in: results, errors, early ends, and what would wait for itself."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from atoll.sdk.background import entered, iterate, wait_for

DEADLINE_S = 10


async def answer(value: int) -> int:
    await asyncio.sleep(0)
    return value


class Numbers:
    """Without end; remembers how it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    async def __call__(self) -> AsyncGenerator[int, None]:
        try:
            for n in range(1_000_000):
                yield n
        finally:
            self.closed.set()


def test_results_and_errors_come_back() -> None:
    async def fail() -> None:
        raise ValueError("no")

    assert wait_for(answer(7)) == 7
    with pytest.raises(ValueError, match="no"):
        wait_for(fail())


def test_threads_share_one_loop() -> None:
    async def where() -> int:
        return threading.get_ident()

    places = [wait_for(where())]
    thread = threading.Thread(target=lambda: places.append(wait_for(where())))
    thread.start()
    thread.join(DEADLINE_S)
    assert len(places) == 2
    assert places[0] == places[1] != threading.get_ident()


def test_an_early_end_closes_what_was_iterated() -> None:
    numbers = Numbers()
    for n in iterate(numbers()):
        if n == 3:
            break
    assert numbers.closed.wait(DEADLINE_S)


def test_leaving_the_block_closes_what_was_watched() -> None:
    numbers = Numbers()

    @asynccontextmanager
    async def watch() -> AsyncIterator[AsyncIterator[int]]:
        async with aclosing(numbers()) as items:
            yield items

    with entered(watch()) as items:
        assert [next(items), next(items)] == [0, 1]
        assert not numbers.closed.is_set()
    assert numbers.closed.is_set()


def test_an_error_inside_the_block_is_not_swallowed() -> None:
    numbers = Numbers()
    with pytest.raises(KeyError), entered(aclosing(numbers())) as items:
        raise KeyError(next(items))
    assert numbers.closed.is_set()


def test_a_callback_that_calls_back_is_refused() -> None:
    async def calls_back() -> None:
        wait_for(answer(1))

    with pytest.raises(RuntimeError, match="would never come"):
        wait_for(calls_back())


def test_an_interpreter_ends_in_the_middle_of_a_stream() -> None:
    program = """
import asyncio
from atoll.sdk.background import iterate
async def numbers():
    while True:
        yield 1
        await asyncio.sleep(0)
items = iterate(numbers())
next(items)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=DEADLINE_S, check=False, capture_output=True)
    assert done.returncode == 0
