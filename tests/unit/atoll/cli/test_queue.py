"""`atoll queue`: what waits, as people see it."""

import json

from atoll.api.v1 import objects_pb2, regional_pb2
from tests.support.fake_global import FakeCluster
from tests.unit.atoll.cli.conftest import Run

VIEW = regional_pb2.QueueView(
    region="r1",
    tenant="acme",
    priority=objects_pb2.PRIORITY_HIGH,
    replicas=7,
    parked=3,
    weighted_share=0.25,
    oldest_ms=65_000,
    head="web/main",
)
PARKED = regional_pb2.QueueItem(
    region="r1",
    tenant="acme",
    workload="web",
    task="main",
    priority=objects_pb2.PRIORITY_HIGH,
    replicas=3,
    waiting_ms=65_000,
    reasons=[objects_pb2.PendingReason(code="InsufficientCpu", message="nodes with no CPU left", nodes=2)],
)


def test_the_lines(atoll: Run, cluster: FakeCluster) -> None:
    cluster.region.queue.queues.append(VIEW)
    cluster.region.queue.unreachable.append("r2")
    result = atoll("queue", "list", "-A")
    assert result.code == 0
    assert result.out.splitlines()[1].split() == ["r1", "acme", "high", "7", "3", "0.250", "65s", "web/main"]
    assert "region r2 cannot be asked" in result.err
    assert cluster.region.queue_asked == regional_pb2.ListQueueRequest()
    (shown,) = json.loads(atoll("queue", "list", "-o", "json").out)["items"]
    assert (shown["tenant"], shown["head"]) == ("acme", "web/main")


def test_where_a_workload_stands(atoll: Run, cluster: FakeCluster) -> None:
    in_line = regional_pb2.QueueItem(region="r1", tenant="acme", workload="web", replicas=2, position=4)
    cluster.region.queue.items.extend([in_line, PARKED])
    result = atoll("queue", "get", "web")
    assert result.code == 0
    first, second = result.out.splitlines()[1:]
    assert "(gang)" in first and " 4 " in first and "in line" in first
    assert "no CPU left" in second and "65s" in second
    assert cluster.region.queue_asked.workload == "web"


def test_nothing_waits(atoll: Run, cluster: FakeCluster) -> None:
    result = atoll("queue", "list")
    assert (result.code, result.out, result.err.strip()) == (0, "", "nothing waits")
    assert atoll("queue", "get", "web").err.strip() == "nothing of web waits in a region's queue\nTry   atoll why web"
