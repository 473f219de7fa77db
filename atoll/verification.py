"""Follows a store with the auditor (audit.py): from its first revision, or from where its history begins."""

import asyncio
from collections.abc import Callable

from atoll.audit import Auditor, Verdict
from atoll.store.store import Batch, Compacted, Store, list_all

ROOTS = b"/"  # one watch over /g and /r, so that revisions come whole
REPORT_EVERY_S = 1.0


async def verify(
    store: Store,
    *,
    follow: bool,
    until_revision: int | None,
    report: Callable[[Verdict], None],
    since_revision: int = 0,
) -> Verdict:
    """Checks up to `until_revision`, or else up to the store's revision now, or with `follow` until cancelled.
    `report` gets the verdict so far once a second. Raises StoreUnavailable.

    `since_revision`: begins with the state there. What comes after the beginning etcd reads at once, and answers others
    late meanwhile, so of a long history less is to be asked."""
    auditor, end, oldest = Auditor(), until_revision, since_revision

    async def tell() -> None:
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            report(auditor.verdict())

    if end is None and not follow:
        _, end = await store.get(ROOTS)
    telling = asyncio.create_task(tell())
    try:
        while end is None or auditor.revision < end:
            try:
                if oldest:  # what was before it is compacted; more may be meanwhile
                    auditor.begin(await list_all(store, ROOTS, revision=oldest))
                async with store.watch(ROOTS, start_revision=auditor.revision + 1) as batches:
                    async for batch in batches:
                        # what comes after the end shows that everything up to the end has come
                        auditor.feed(batch if end is None or batch.revision <= end else Batch(end))
                        if auditor.revision == end:
                            break
            except Compacted as gone:
                oldest = gone.revision
    finally:
        telling.cancel()
    return auditor.verdict()
