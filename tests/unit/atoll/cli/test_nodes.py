"""`atoll node` against a real region's core on the memory store: what is shown, asked and done, and the exit codes."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll import rpc
from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.clock import SystemClock
from atoll.sdk import contexts
from atoll.sdk.contexts import Connection, Contexts
from atoll.store.memory import MemoryStore
from regional.core.events import NodeHello, ShareArrived, SliceArrived
from regional.loop import Region
from tests.support.pki import Pki
from tests.support.region import REGION, settings
from tests.support.wait import until
from tests.unit.atoll.cli.conftest import Run

ROOM = objects_pb2.Resources(cpu_milli=4_000, memory_mib=4_096)


@dataclass
class Playground:
    """A region with the nodes n1 and n2, whose agents never speak after their hello; `web` has two replicas on n1."""

    region: Region
    loop: asyncio.AbstractEventLoop


def share() -> ShareArrived:
    task = objects_pb2.Task(name="main", replicas=2, driver=objects_pb2.DRIVER_PROCESS, command=["x"])
    task.resources.requests.cpu_milli, task.resources.requests.memory_mib = 100, 10
    task.node_selector.add(key="first", value="yes")
    metadata = objects_pb2.Metadata(name="web", tenant="acme", generation=1, uid="u")
    spec = objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_SERVICE, tasks=[task])
    return ShareArrived(objects_pb2.Share(metadata=metadata, region=REGION, spec=spec, global_revision=1))


def granted() -> SliceArrived:
    account = objects_pb2.AccountSlice(account=objects_pb2.ACCOUNT_HARD, granted=ROOM, target=ROOM)
    return SliceArrived(
        regional_pb2.SliceStamp(
            slice=objects_pb2.Slice(tenant="acme", region=REGION, seq=1, accounts=[account]), global_revision=1
        )
    )


@pytest.fixture
def playground(home: Path) -> Iterator[Playground]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    (home / "pki").mkdir()
    pki = Pki(home / "pki")
    token = pki.user("olga", objects_pb2.ROLE_OPERATOR)

    async def start() -> tuple[Region, rpc.Server, asyncio.Task[None]]:
        region = Region(settings(pki, home), MemoryStore(), SystemClock())
        running = asyncio.create_task(region.run("a:1", "a:2"))
        await until(lambda: region.machine.state)
        for number, name in enumerate(("n1", "n2"), 1):
            labels = [objects_pb2.Label(key="first", value="yes")] if name == "n1" else []
            images = agent_pb2.Images(names=["acme/web:2", "acme/db:1"] if name == "n1" else [])
            hello = agent_pb2.Hello(node=name, incarnation=1, capacity=ROOM, labels=labels, images=images)
            region.core.post(NodeHello(number, name, "", (), hello))
        region.core.post(granted())
        region.core.post(share())
        state = region.machine.state
        assert state is not None
        await until(lambda: "n1" in state.nodes and len(state.nodes["n1"].slots) == 2)
        server = rpc.Server(pki.region(REGION), pki.find_user, SystemClock())
        server.add(regional_pb2_grpc.add_RegionalServicer_to_server, region.api)
        await server.start("127.0.0.1:0", "127.0.0.1:0")
        return region, server, running

    region, server, running = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    connection = Connection(server.people_address, str(pki.ca), token, tenant="default")
    contexts.save(Contexts("test", {"test": connection}))
    yield Playground(region, loop)

    async def stop() -> None:
        await server.stop(0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def test_cordon_and_uncordon_show_in_the_list(atoll: Run, playground: Playground) -> None:
    result = atoll("node", "cordon", "n1", "n2", "--reason", "disk")
    assert (result.code, result.out) == (0, "node/n1 cordoned\nnode/n2 cordoned\n")
    lines = [line.split() for line in atoll("node", "list").out.splitlines()]
    assert [line[:2] for line in lines[1:]] == [["n1", "ready,cordoned"], ["n2", "ready,cordoned"]]
    assert atoll("node", "uncordon", "n1").out == "node/n1 takes work\n"
    assert json.loads(atoll("node", "get", "n1", "-o", "json").out).get("cordoned", False) is False


def test_a_drain_shows_what_moves_and_asks(atoll: Run, playground: Playground) -> None:
    asked = atoll("node", "drain", "n1", "--reason", "kernel")
    assert asked.code == 2
    assert "n1 (ready): 2 replicas: acme/web (2): will move" in asked.err
    assert "say --yes" in asked.err
    assert atoll("node", "get", "n1", "-o", "name").out == "node/n1\n"
    result = atoll("node", "drain", "n1", "--reason", "kernel", "--deadline", "90s", "--yes", "--no-wait")
    assert (result.code, result.out) == (0, "node/n1 draining\n")
    shown = atoll("node", "get", "n1")
    assert "ready,draining" in shown.out
    assert "kernel: 2 not heard of since the leader changed" in shown.out
    assert "web/0" in shown.out


def test_a_drain_waits_until_nothing_is_left(atoll: Run, playground: Playground) -> None:
    result = atoll("node", "drain", "n2", "--reason", "kernel", "--yes")
    assert (result.code, result.out) == (0, "node/n2 draining\n")
    assert "n2: drained" in result.err


def test_a_drain_says_why(atoll: Run, playground: Playground) -> None:
    assert atoll("node", "drain", "n1", "--yes").code == 2
    assert atoll("node", "drain", "n1", "--yes", "--reason", "x" * 300).code == 2


def test_labels_and_taints(atoll: Run, playground: Playground) -> None:
    assert atoll("node", "label", "n2", "disk=ssd", "trusted/rack=r1").out == "node/n2 labeled\n"
    assert atoll("node", "label", "n2", "trusted/rack-").code == 0
    taint = atoll("node", "taint", "n2", "gpu=a100:NoSchedule")
    assert (taint.code, taint.out) == (0, "node/n2 tainted\n")
    wide = atoll("node", "list", "-o", "wide").out
    assert "gpu=a100:NoSchedule" in wide
    assert "disk=ssd" in wide
    assert "trusted/rack" not in wide
    assert atoll("node", "taint", "n1", "broken:NoExecute").code == 2, "it moves work: somebody has to say yes"
    for wrong in ("gpu", "gpu:Sometimes", "g p:NoSchedule"):
        assert atoll("node", "taint", "n2", wrong).code == 2
    assert atoll("node", "taint", "n2", "gpu-").code == 0
    assert "gpu" not in atoll("node", "list", "-o", "wide").out


def test_a_node_goes_when_it_is_empty_and_gets_nothing(atoll: Run, playground: Playground) -> None:
    busy = atoll("node", "remove", "n2", "--yes")
    assert busy.code == 4
    assert "atoll node drain n2" in busy.err
    atoll("node", "cordon", "n2")
    gone = atoll("node", "remove", "n2", "--yes", "--request-id", "r1")
    assert (gone.code, gone.out) == (0, "node/n2 removed\n")
    assert atoll("node", "remove", "n2", "--yes", "--request-id", "r1").out == "node/n2 removed\n"
    assert atoll("node", "get", "n2").code == 1


def test_a_request_id_is_for_one_request(atoll: Run, playground: Playground) -> None:
    assert atoll("node", "cordon", "n1", "--request-id", "a").code == 0
    assert atoll("node", "uncordon", "n1", "--request-id", "a").code == 4


def test_join_tokens_are_listed_and_revoked(atoll: Run, playground: Playground) -> None:
    made = atoll("node", "token", "create", "--pool", "gpu").out.strip()
    atoll("node", "token", "create", "--pool", "other")
    (row,) = [line.split() for line in atoll("node", "token", "list", "--pool", "gpu").out.splitlines()[1:]]
    assert row[0] in made
    assert made.rpartition(".")[2] not in atoll("node", "token", "list", "-o", "json").out
    assert row[4] == "open"
    revoked = atoll("node", "token", "revoke", row[0])
    assert (revoked.code, revoked.out) == (0, f"jointoken/{row[0]} revoked\n")
    assert atoll("node", "token", "revoke", row[0]).code == 0
    assert "revoked" in atoll("node", "token", "list", "--pool", "gpu").out
    assert atoll("node", "token", "revoke", "nothing").code == 1


def test_the_images_of_a_node_are_counted_and_named(atoll: Run, playground: Playground) -> None:
    """Of one node; the names of many would be too much for an answer."""
    head, *rows = atoll("get", "nodes", "-o", "wide").out.splitlines()
    at = head.index("IMAGES")
    assert [row[at:].split()[0] for row in rows] == ["2", "0"]
    for words in (("get", "nodes"), ("node", "list")):
        first, second = json.loads(atoll(*words, "-o", "json").out)["items"]
        assert (first["imagesHeld"], second.get("imagesHeld", 0)) == (2, 0)
        assert "images" not in first
    for words in (("get", "node", "n1"), ("node", "get", "n1")):
        assert json.loads(atoll(*words, "-o", "json").out)["images"] == ["acme/db:1", "acme/web:2"]
    assert atoll("node", "get", "n1").out.endswith("\nIMAGES\nacme/db:1\nacme/web:2\n")
    assert atoll("node", "get", "n2").out.count("IMAGES") == 1, "the column"
    assert atoll("get", "node", "n3").code == 1


def test_unknown_nodes(atoll: Run, playground: Playground) -> None:
    for verb in (("cordon", "n9"), ("drain", "n9", "--reason", "x", "--yes"), ("label", "n9", "a=b")):
        result = atoll("node", *verb)
        assert result.code == 1
        assert "no node" in result.err
