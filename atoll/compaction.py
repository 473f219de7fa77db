"""Forgetting the store's history behind a leader, so that etcd does not grow for ever.

Decides what may be forgotten: revisions that are older than `history_s`, as seen by this process. Nothing that matters
rests on history; watchers that lag further behind list again. Several leaders of one etcd may do it side by side.
"""

import asyncio
from collections import deque

import structlog

from atoll.store.store import Compacted, Store, StoreError

STEPS = 4  # of one history: compacting every quarter keeps between one and one and a quarter of it

_log = structlog.get_logger()


async def compact_behind(store: Store, history_s: float) -> None:
    """Until cancelled. A store that does not answer is asked again a step later."""
    seen: deque[int] = deque(maxlen=STEPS + 1)
    while True:
        try:
            seen.append((await store.status()).revision)
            if len(seen) > STEPS:
                await store.compact(seen[0])
        except Compacted:
            pass  # another leader was there before
        except StoreError as error:
            _log.warning("not compacted", reason=str(error))
        await asyncio.sleep(history_s / STEPS)
