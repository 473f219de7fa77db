"""CPU time of a takeover: the records of a full region read into the core, until it may bind.

`python -m tests.benchmarks.adopt --slots 200000 --nodes 10000 --json out.json`

The records are what a region with so many bound replicas keeps, handed over as the shell does it. `longest_ms` is the
longest that one event keeps the loop that renews the lease from its turn.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.lane import Authority
from atoll.leadership import RECORDS_AT_ONCE
from atoll.model.resources import vector
from atoll.reign import LeadershipWon, RecordsRead
from atoll.service import collect_less_often
from atoll.store import keys
from atoll.store.store import KeyValue
from regional.config import CoreSettings
from regional.core.machine import Machine
from tests.benchmarks.fleet import CAPACITY, PLENTY, REGION, REQUEST, TENANTS

ROOT = keys.region_root(REGION)
REPLICAS = 100
REVISION = 1_000_000


def records(slots: int, nodes: int) -> Iterator[KeyValue]:
    for number in range(nodes):
        yield _item(keys.node(ROOT, f"n{number:05d}"), _node(number))
    for number, tenant in enumerate(TENANTS):
        held = vector(REQUEST) * (REPLICAS * len(range(number, slots // REPLICAS, len(TENANTS))))
        use = objects_pb2.LaneUse()
        use.charges.add(account=objects_pb2.ACCOUNT_HARD, charged=held.to_proto())
        yield _item(keys.used(ROOT, tenant, 0), use)
        limits = [objects_pb2.AccountLimit(account=objects_pb2.ACCOUNT_HARD, limit=PLENTY, target=PLENTY)]
        granted = objects_pb2.RegionSlice(tenant=tenant, epoch=1, seq=1, limits=limits)
        yield _item(keys.region_slice(ROOT, tenant), granted)
    for number in range(slots // REPLICAS):
        share = _share(number)
        yield _item(keys.region_workload(ROOT, share.metadata.tenant, share.metadata.name), share)
        for index in range(REPLICAS):
            slot = _slot(share, index, f"n{(number * REPLICAS + index) % nodes:05d}")
            yield _item(keys.slot(ROOT, slot.id), slot)


def _item(key: bytes, record: Message) -> KeyValue:
    return KeyValue(key, record.SerializeToString(), 1, REVISION, 1, 0)


def _node(number: int) -> objects_pb2.Node:
    name = f"n{number:05d}"
    labels = [objects_pb2.Label(key="zone", value=f"z{number % 3}"), objects_pb2.Label(key="hostname", value=name)]
    return objects_pb2.Node(
        metadata=objects_pb2.Metadata(name=name, labels=labels),
        capacity=CAPACITY,
        state=objects_pb2.NODE_STATE_READY,
        heartbeat_ms=10_000,
    )


def _share(number: int) -> objects_pb2.Share:
    tenant, name = TENANTS[number % len(TENANTS)], f"job-{number:05d}"
    task = objects_pb2.Task(
        name="main",
        replicas=REPLICAS,
        driver=objects_pb2.DRIVER_FAKE,
        command=["work"],
        resources=objects_pb2.ResourceRequirements(requests=REQUEST),
    )
    share = objects_pb2.Share(
        metadata=objects_pb2.Metadata(name=name, tenant=tenant, generation=1, uid=name),
        region=REGION,
        epoch=1,
        global_term=1,
        global_revision=number + 1,
        spec=objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_JOB, tasks=[task]),
    )
    share.templates.add(task="main", generation=1)
    return share


def _slot(share: objects_pb2.Share, index: int, node: str) -> objects_pb2.Slot:
    tenant, name = share.metadata.tenant, share.metadata.name
    return objects_pb2.Slot(
        id=objects_pb2.SlotId(tenant=tenant, workload=name, task="main", index=index),
        state=objects_pb2.SLOT_STATE_BOUND,
        node=node,
        attempt=objects_pb2.Attempt(term=1, n=share.global_revision * REPLICAS + index),
        generation=1,
        uid=name,
        vector=REQUEST,
    )


def measure(listed: tuple[KeyValue, ...]) -> dict[str, float]:
    machine = Machine(REGION, CoreSettings())
    authority = Authority(ROOT, term=REVISION + 1)
    starts = range(0, len(listed), RECORDS_AT_ONCE)
    parts = [RecordsRead(authority, listed[start : start + RECORDS_AT_ONCE]) for start in starts]
    took_s = []
    for event in (*parts, LeadershipWon(authority, (), REVISION + 1)):
        began = time.thread_time()
        machine.handle(event, 1_000)
        took_s.append(time.thread_time() - began)
    assert machine.state is not None
    machine.state.check()
    return {"cpu_s": round(sum(took_s), 2), "longest_ms": round(max(took_s) * 1000), "events": len(took_s)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.adopt", description=__doc__)
    parser.add_argument("--slots", type=int, default=200_000)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    collect_less_often()
    listed = tuple(sorted(records(arguments.slots, arguments.nodes), key=lambda item: item.key))
    text = json.dumps({"slots": arguments.slots, "nodes": arguments.nodes, **measure(listed)}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
