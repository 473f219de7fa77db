"""Waiting for a condition, with a deadline: what tests do instead of sleeping for a guess."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Returns once `condition()` is true; raises TimeoutError after `deadline_s`."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - whatever the condition looks at gives no notice
            await asyncio.sleep(0.002)
