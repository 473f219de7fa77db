"""Decisions a second of the regional core alone: no etcd, no agents; every plan is answered as committed at once.

`python -m tests.benchmarks.decide --decisions 20000 --json out.json`

A decision is one replica placed: picked by the queue, filtered and scored against all nodes, charged, put into a BIND,
settled, and its assignment made. Classes are mixed: several shapes, bin-packed or spread, a part of them bound to a
zone, kept even over the zones, or apart from their own kind on every node, from four tenants, so that hardly two turns
ask alike. CPU time of the one thread, over clusters of several sizes.
"""

import argparse
import collections
import itertools
import json
import time
from pathlib import Path
from typing import Any

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.lane import Authority, Committed
from atoll.service import collect_less_often
from atoll.store import keys
from regional.config import CoreSettings
from regional.core.commands import Command, Commit
from regional.core.events import Event, LeadershipWon, NodeHello, PlanSettled, ShareArrived, Woke
from regional.core.machine import Machine
from regional.core.queue import NEVER_MS
from tests.benchmarks.fleet import CAPACITY, REGION, TENANTS, Jobs

SIZES = (1_000, 10_000, 50_000)
SHAPES = tuple(itertools.product((250, 500, 1_000, 2_000), (256, 1_024, 4_096)))  # cpu_milli, memory_mib
REPLICAS = 100
SPREAD_EVERY = 4  # one class in so many is spread, one bound to a zone, one even over zones, one apart on nodes
ZONES = 3
WARM_UP = 2_000  # decisions
NOW_MS = 1_000


class Core:
    """A leading machine whose plans are committed in the order they come."""

    def __init__(self) -> None:
        self.machine = Machine(REGION, CoreSettings())
        self._events: collections.deque[Event] = collections.deque()
        self._revision = 10
        self.bound = 0
        self.post(LeadershipWon(Authority(keys.region_root(REGION), term=10), (), 10))

    def post(self, event: Event) -> None:
        self._events.append(event)

    def run(self) -> None:
        """Until there is nothing left to do."""
        while self._events or (self.machine.next_deadline() or NEVER_MS) <= NOW_MS:
            event = self._events.popleft() if self._events else Woke()
            for command in self.machine.handle(event, NOW_MS):
                self._execute(command)

    def _execute(self, command: Command) -> None:
        if isinstance(command, Commit):
            self._revision += 1
            self.bound += sum(b"/slot/" in write.key for write in command.plan.writes)
            self.post(PlanSettled(command.plan_id, Committed(self._revision), 1_000))


def _join(core: Core, nodes: int) -> None:
    for session in range(1, nodes + 1):
        name = f"n{session:05d}"
        labels = (("zone", f"z{session % ZONES}"),)
        hello = agent_pb2.Hello(node=name, incarnation=1, capacity=CAPACITY)
        core.post(NodeHello(session, name, "", labels, hello))
        if session % 1_000 == 0:
            core.run()
    core.run()


def _add(core: Core, number: int) -> None:
    cpu_milli, memory_mib = SHAPES[number % len(SHAPES)]
    task = objects_pb2.Task(
        name="main",
        replicas=REPLICAS,
        driver=objects_pb2.DRIVER_FAKE,
        command=["work"],
        strategy="spread" if number % SPREAD_EVERY == 0 else "bin-pack",
        resources=objects_pb2.ResourceRequirements(
            requests=objects_pb2.Resources(cpu_milli=cpu_milli, memory_mib=memory_mib)
        ),
    )
    if number % SPREAD_EVERY == 1:
        task.node_selector.add(key="zone", value=f"z{number % ZONES}")
    if number % SPREAD_EVERY == 2:
        task.topology_spread.add(within="zone", max_skew=1)
    if number % SPREAD_EVERY == 3:
        task.avoid_colocating.add(workload=f"job-{number}", within="node")
    name = f"job-{number}"
    metadata = objects_pb2.Metadata(name=name, tenant=TENANTS[number % len(TENANTS)], generation=1, uid=name)
    spec = objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_JOB, tasks=[task])
    share = objects_pb2.Share(metadata=metadata, region=REGION, epoch=1, spec=spec, global_term=1)
    share.global_revision = 100 + number
    core.post(ShareArrived(share))


def measure(nodes: int, decisions: int) -> dict[str, float]:
    core = Core()
    Jobs(core).grant()
    _join(core, nodes)
    numbers = itertools.count()
    for wanted in (WARM_UP, decisions):
        core.bound, began = 0, time.thread_time()
        for _ in range(wanted // REPLICAS):
            _add(core, next(numbers))
        core.run()
        cpu_s = time.thread_time() - began
    assert core.bound == decisions, f"{core.bound} of {decisions} replicas were placed"
    return {"decisions_per_s": round(decisions / cpu_s), "us_per_decision": round(cpu_s * 1e6 / decisions, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decide", description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    collect_less_often()
    sizes: dict[str, Any] = {str(nodes): measure(nodes, arguments.decisions) for nodes in SIZES}
    smallest = sizes[str(SIZES[0])]["us_per_decision"]
    for size in sizes.values():
        size["cost_to_smallest"] = round(size["us_per_decision"] / smallest, 2)
    text = json.dumps({"nodes": sizes, "decisions": arguments.decisions}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
