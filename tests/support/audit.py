"""The audit that ends every integration test."""

from atoll.audit import Verdict
from atoll.store.store import Store
from atoll.verification import verify


async def assert_clean(store: Store) -> Verdict:
    """Replays the whole history of `store`: something was written, and every invariant held at every revision."""
    verdict = await verify(store, follow=False, until_revision=None, report=lambda _: None)
    assert verdict.checked, "the store has no history to audit"
    assert not verdict.broken, "\n".join(map(str, verdict.violations))
    return verdict
