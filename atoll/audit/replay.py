"""Runs the auditor over a store: from revision 1, or from where its history begins, to the end or forever."""

import asyncio
from collections.abc import Callable

from atoll.audit.auditor import Auditor
from atoll.audit.findings import Verdict
from atoll.store.store import Batch, Compacted, Store, list_all

ROOTS = b"/"  # one watch over /g and /r, so that revisions come whole
REPORT_EVERY_S = 1.0


async def verify(
    store: Store, *, follow: bool, until_revision: int | None, report: Callable[[Verdict], None]
) -> Verdict:
    """Checks up to `until_revision`, or else up to the store's revision now, or with `follow` until cancelled.
    `report` gets the verdict so far once a second. Raises StoreUnavailable."""
    auditor, end = Auditor(), until_revision
    if end is None and not follow:
        _, end = await store.get(ROOTS)
    reporting = asyncio.create_task(_report(auditor, report))
    try:
        while end is None or auditor.revision < end:
            try:
                await _replay(store, auditor, end)
            except Compacted as gone:
                await _begin(store, auditor, gone.revision)
    finally:
        reporting.cancel()
    return auditor.verdict()


async def _report(auditor: Auditor, report: Callable[[Verdict], None]) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        report(auditor.verdict())


async def _replay(store: Store, auditor: Auditor, end: int | None) -> None:
    async with store.watch(ROOTS, start_revision=auditor.revision + 1) as batches:
        async for batch in batches:
            # what comes after the end shows that everything up to the end has come
            auditor.feed(batch if end is None or batch.revision <= end else Batch(end))
            if auditor.revision == end:
                return


async def _begin(store: Store, auditor: Auditor, oldest: int) -> None:
    """From the oldest state that is still there; more may be compacted meanwhile."""
    while True:
        try:
            return auditor.begin(await list_all(store, ROOTS, revision=oldest))
        except Compacted as gone:
            oldest = gone.revision
