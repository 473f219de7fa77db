"""How many unknown outcomes are settled right: `python -m tests.benchmarks.unknown_outcomes --unknowns 500`.

Three etcd members, the leader killed or paused again and again, transactions with a deadline of 300 ms. Prints JSON.
Exits 1 when a verdict was wrong, the history breaks an invariant, or there were too few unknown outcomes.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from atoll.store.etcd import EtcdStore
from tests.support import unknowns
from tests.support.audit import assert_clean
from tests.support.etcd import EtcdCluster


async def measure(count: int, longest_s: float, lanes: int, seed: int) -> unknowns.Report:
    with EtcdCluster(3, fsync=False) as cluster:
        report = await unknowns.provoke(cluster, unknowns=count, longest_s=longest_s, lanes=lanes, seed=seed)
        store = await EtcdStore.connect(cluster.endpoints)
        await assert_clean(store)
        await store.close()
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unknowns", type=int, default=500)
    parser.add_argument("--longest-s", type=float, default=600)
    parser.add_argument("--lanes", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    began_s = time.monotonic()
    report = asyncio.run(measure(asked.unknowns, asked.longest_s, asked.lanes, asked.seed))
    figures = {
        "unknowns": report.unknowns,
        "settled_committed": report.settled_committed,
        "settled_sealed": report.settled_sealed,
        "wrong": len(report.wrong),
        "transactions": len(report.verdicts),
        "faults": report.faults,
        "terms": len(report.writers),
        "seconds": round(time.monotonic() - began_s, 1),
    }
    print(json.dumps(figures))
    if asked.json:
        asked.json.write_text(json.dumps(figures))
    if report.wrong or report.unknowns < asked.unknowns:
        sys.exit("\n".join(report.wrong) or "too few unknown outcomes")


if __name__ == "__main__":
    main()
