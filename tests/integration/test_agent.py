"""The agent as a real program, with real processes: kill -9, SIGSTOP, a corrupt checkpoint, a disk that refuses."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2
from tests.support.agent_region import AgentRegion, AgentSession

SLOT = objects_pb2.SlotId(tenant="acme", workload="web", task="main", index=0)
NAME = "acme/web/main/0"
RUNNING, CLOSED = agent_pb2.ATTEMPT_PHASE_RUNNING, agent_pb2.ATTEMPT_PHASE_CLOSED
KEEP, EXCLUSIVE = objects_pb2.RUN_CLASS_KEEP, objects_pb2.RUN_CLASS_EXCLUSIVE


def assign(n: int, command: list[str], run_class: objects_pb2.RunClass.ValueType = KEEP) -> agent_pb2.Assign:
    return agent_pb2.Assign(
        token=objects_pb2.Token(store_life=1, epoch=1, term=1, attempt=objects_pb2.Attempt(term=1, n=n)),
        slot=SLOT,
        generation=1,
        task=objects_pb2.Task(name="main", command=command, env=[objects_pb2.Label(key="COLOUR", value="blue")]),
        run_class=run_class,
        type=objects_pb2.WORKLOAD_TYPE_SERVICE,
    )


def sync(*assigns: agent_pb2.Assign) -> agent_pb2.RegionMessage:
    return agent_pb2.RegionMessage(sync=agent_pb2.Sync(term=1, assignments=assigns))


class Node:
    """One agent process after another on the same state folder."""

    def __init__(self, folder: Path, region: AgentRegion) -> None:
        self.state = folder / "state"
        self.region = region
        self.config = folder / "agent.toml"
        self.process: asyncio.subprocess.Process | None = None
        settings = {
            "name": "n1",
            "region_people": [region.server.people_address],
            "region_programs": [region.server.programs_address],
            "join_token": region.token.text(),
            "ca": str(region.ca),
            "state_dir": str(self.state),
            "driver": "process",
            "reconnect_min_ms": 50,
        }
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))

    async def start(self) -> AgentSession:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", "--config", str(self.config), stdout=asyncio.subprocess.PIPE
        )
        session = await self.region.sessions.get()
        assert self.process.stdout is not None
        assert json.loads(await self.process.stdout.readline())["ready"] == "agent"
        return session

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        await self.process.wait()

    def pids(self) -> list[int]:
        """Everything alive that was started by an agent of this node."""
        needle = f"ATOLL_STATE={self.state.resolve()}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and needle in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return sorted(found)

    async def until_nothing_runs(self) -> None:
        while self.pids():  # noqa: ASYNC110 - the processes tell nobody here
            await asyncio.sleep(0.02)


@pytest.fixture
async def region(tmp_path: Path) -> AsyncIterator[AgentRegion]:
    region = AgentRegion(tmp_path / "pki")
    await region.start()
    yield region
    await region.stop()


@pytest.fixture
async def node(tmp_path: Path, region: AgentRegion) -> AsyncIterator[Node]:
    node = Node(tmp_path, region)
    yield node
    if node.process and node.process.returncode is None:
        node.send(signal.SIGCONT)
        await node.end(signal.SIGKILL)
    for pid in node.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_joins_runs_answers_for_logs_and_stops(node: Node, region: AgentRegion) -> None:
    session = await node.start()
    assert session.hello.node == "n1"
    assert session.hello.capacity.cpu_milli > 0
    assert region.joined == 1
    assert (node.state / "identity/current/node.key").stat().st_mode & 0o777 == 0o600
    session.say(sync())
    session.say(
        agent_pb2.RegionMessage(
            assign=assign(1, ["sh", "-c", "echo $COLOUR $ATOLL_REGION $ATOLL_TOKEN; exec sleep 1000"])
        )
    )
    status = await region.until(NAME, 1, phase=RUNNING, serving=True)
    assert status.ready
    logs = agent_pb2.Query(id=7, logs=agent_pb2.LogQuery(slot=SLOT, tail_lines=5, follow=True))
    session.say(agent_pb2.RegionMessage(query=logs))
    async with region.heard:
        await region.heard.wait_for(lambda: b"".join(a.data for a in region.answers) == b"blue eu-1 1.1.1.1.1\n")
    stop = agent_pb2.Stop(token=assign(1, []).token, slot=SLOT, grace_ms=5000, reason="scaled down")
    session.say(agent_pb2.RegionMessage(stop=stop))
    status = await region.until(NAME, 1, phase=CLOSED)
    assert (status.exit.code, status.exit.reason) == (143, "Stopped")
    assert node.pids() == []
    await node.end(signal.SIGTERM)
    assert node.process is not None
    assert node.process.returncode == 0


async def test_kill_9_of_the_agent_leaves_the_work_and_the_next_one_adopts_it(node: Node, region: AgentRegion) -> None:
    session = await node.start()
    work = assign(1, ["sleep", "1000"])
    session.say(sync(work))
    before = await region.until(NAME, 1, phase=RUNNING)
    pids = node.pids()
    await node.end(signal.SIGKILL)
    assert node.pids() == pids
    again = await node.start()
    assert region.joined == 1, "the certificate is kept"
    assert again.hello.incarnation == session.hello.incarnation
    (status,) = again.hello.inventory
    assert (status.phase, status.generation) == (RUNNING, before.generation)
    again.say(sync(work))
    again.say(agent_pb2.RegionMessage(assign=assign(2, ["sleep", "1000"])))
    await region.until(NAME, 1, phase=CLOSED)
    await region.until(NAME, 2, phase=RUNNING)
    assert not set(pids) & set(node.pids())


async def test_an_exit_while_no_agent_ran_is_known(node: Node, region: AgentRegion) -> None:
    session = await node.start()
    work = assign(1, ["sh", "-c", "while [ ! -e go ]; do sleep 0.02; done; exit 5"])
    work.task.restart.mode = objects_pb2.RESTART_MODE_NEVER
    session.say(sync(work))
    await region.until(NAME, 1, phase=RUNNING)
    await node.end(signal.SIGKILL)
    (folder,) = node.state.glob("runs/*/work")
    (folder / "go").touch()
    await node.until_nothing_runs()
    again = await node.start()
    again.say(sync(work))  # until it has this, an agent says nothing more
    status = await region.until(NAME, 1, phase=CLOSED)
    assert (status.exit.code, status.exit.reason) == (5, "Failed")


async def test_a_corrupt_checkpoint_is_a_new_incarnation_that_assumes_nothing(node: Node, region: AgentRegion) -> None:
    session = await node.start()
    session.say(sync(assign(1, ["sleep", "1000"])))
    await region.until(NAME, 1, phase=RUNNING)
    await node.end(signal.SIGKILL)
    checkpoint = node.state / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-3])
    again = await node.start()
    assert again.hello.incarnation > session.hello.incarnation
    assert (node.state / "checkpoint.corrupt").exists()
    (status,) = again.hello.inventory
    assert status.phase == RUNNING
    again.say(sync())
    await region.until(NAME, 1, phase=CLOSED)
    assert node.pids() == []


async def test_a_checkpoint_that_cannot_be_written_holds_starts_back_and_says_so(
    node: Node, region: AgentRegion
) -> None:
    session = await node.start()
    session.say(sync())
    obstacle = node.state / "checkpoint.new"
    while True:
        try:
            obstacle.mkdir()
            break
        except FileExistsError:  # the write of the welcome is under way
            await asyncio.sleep(0.01)
    session.say(agent_pb2.RegionMessage(assign=assign(1, ["sleep", "1000"])))
    status = await region.until(
        NAME,
        1,
        phase=agent_pb2.ATTEMPT_PHASE_ACCEPTED,
        message="StorageFailed: not started: the checkpoint cannot be written: Is a directory",
    )
    assert status.exit.code == 0
    assert node.pids() == []
    obstacle.rmdir()
    await region.until(NAME, 1, phase=RUNNING)


async def test_exclusive_work_dies_in_time_although_the_agent_is_stopped(node: Node, region: AgentRegion) -> None:
    region.heartbeat_ms, region.fence_after_ms = 200, 1000
    session = await node.start()
    session.say(sync(assign(1, ["sleep", "1000"], EXCLUSIVE)))
    await region.until(NAME, 1, phase=RUNNING)
    assert node.pids()
    node.send(signal.SIGSTOP)
    await node.until_nothing_runs()
    node.send(signal.SIGCONT)
    syncing = asyncio.create_task(region.sync_all(sync()))  # it may leave the old stream before it knows of the end
    await region.until(NAME, 1, phase=CLOSED)
    syncing.cancel()


async def test_exclusive_work_stops_when_heartbeats_go_unanswered(node: Node, region: AgentRegion) -> None:
    region.heartbeat_ms, region.fence_after_ms = 200, 1000
    session = await node.start()
    session.say(sync(assign(1, ["sleep", "1000"], EXCLUSIVE)))
    await region.until(NAME, 1, phase=RUNNING)
    region.acknowledge = False
    await node.until_nothing_runs()
    syncing = asyncio.create_task(region.sync_all(sync()))
    status = await region.until(NAME, 1, phase=CLOSED)
    syncing.cancel()
    assert "fenced" in status.exit.message


async def test_a_second_agent_on_the_same_folder_is_refused(node: Node) -> None:
    await node.start()
    second = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", "--config", str(node.config), stderr=asyncio.subprocess.PIPE
    )
    _, errors = await second.communicate()
    assert second.returncode == 6
    assert b"another agent runs on" in errors
