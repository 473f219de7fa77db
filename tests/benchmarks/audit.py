"""Revisions a second of the auditor: over histories that the simulator wrote, and over one that a real etcd keeps.

`python -m tests.benchmarks.audit --seeds 20 --revisions 200000 --json out.json`

The histories are whole: leaders fall, nodes are lost, outcomes are unknown. The first figure is the auditor alone (CPU
time, histories in memory, read again until there are enough revisions); the second is `verify` over a real etcd that
holds one of them revision by revision, decoding included.
"""

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from atoll.audit import Auditor
from atoll.store.etcd import EtcdStore
from atoll.store.store import Applied, Batch, Delete, Put, Txn
from atoll.verification import verify
from simulation.faults import draw
from simulation.world import World
from tests.support.etcd import EtcdCluster

EVENTS = 10_000
LEASE_S = 3600


def history(seed: int, events: int = EVENTS) -> list[Batch]:
    """Every revision of a simulated region's store."""
    world = World(seed, draw(random.Random(seed)), nodes=8, lanes=1 + seed % 4)
    world.begin()
    world.kernel.run(events=events)
    return list(world.state.batches(b"/", 1))


def replay(histories: Sequence[Sequence[Batch]], revisions: int) -> dict[str, Any]:
    """The auditor alone, over whole histories, until there were `revisions`."""
    done = changes = 0
    began = time.process_time()
    while done < revisions:
        for batches in histories:
            auditor = Auditor()
            for batch in batches:
                auditor.feed(batch)
            assert not auditor.violations, auditor.violations[0]
            done += len(batches)
            changes += sum(len(batch.changes) for batch in batches)
    return figures(done, changes, time.process_time() - began)


def figures(revisions: int, changes: int, cpu_s: float) -> dict[str, Any]:
    return {
        "revisions": revisions,
        "changes_per_revision": round(changes / revisions, 2),
        "cpu_us_per_revision": round(cpu_s / revisions * 1e6, 1),
        "cpu_us_per_change": round(cpu_s / changes * 1e6, 1),
        "cpu_s_per_million_revisions": round(cpu_s / revisions * 1e6, 1),
    }


async def verify_in_etcd(batches: Sequence[Batch]) -> dict[str, Any]:
    """Writes the history into an etcd, each revision where it was, and lets `verify` read it back."""
    with EtcdCluster() as cluster:
        store = await EtcdStore.connect(cluster.endpoints)
        lease = (await store.grant(LEASE_S)).id
        for batch in batches:
            outcome = await store.transact(Txn(success=tuple(_writes(batch, lease))))
            assert isinstance(outcome, Applied), outcome
            assert outcome.revision == batch.revision, "another revision than in the history"
        began = time.process_time()
        verdict = await verify(store, follow=False, until_revision=None, report=lambda _: None)
        cpu_s = time.process_time() - began
        await store.close()
    assert verdict.checked == len(batches)
    assert not verdict.broken, verdict.violations[0]
    return figures(len(batches), sum(len(batch.changes) for batch in batches), cpu_s)


def _writes(batch: Batch, lease: int) -> Iterable[Put | Delete]:
    for key, item, _ in ((change.key, change.item, change.previous) for change in batch.changes):
        yield Put(key, item.value, lease if item.lease else 0) if item else Delete(key)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.audit", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="histories")
    parser.add_argument("--revisions", type=int, default=200_000, help="to read, the histories again and again")
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    histories = [history(seed) for seed in range(1, arguments.seeds + 1)]
    kinds = Counter(change.key.split(b"/")[3].decode() for h in histories for batch in h for change in batch.changes)
    result = {
        "auditor": replay(histories, arguments.revisions),
        "verify_over_etcd": asyncio.run(verify_in_etcd(history(1, EVENTS * 10))),
        "changes": dict(kinds.most_common()),
        "seeds": arguments.seeds,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
