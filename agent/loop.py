"""Carries out what the core commands, and brings the results back as events. No decisions.

Order: commands of one event in the order given; a Guard is in force before the next command begins. Starts and stops
are begun at once and answered by the driver's notices; a checkpoint is written in a thread, one at a time.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from prometheus_client import Counter, Gauge

from agent import inventory
from agent.addresses import Addresses
from agent.checkpoint import Checkpoint
from agent.config import Settings
from agent.core import commands, events
from agent.core.machine import Machine
from agent.drivers.by_task import kind_of
from agent.drivers.driver import RunSpec
from agent.drivers.offer import offer
from agent.enrol import Enrolment
from agent.environment import environment
from agent.guard_keeper import GuardKeeper
from agent.probes import Probes
from agent.queries import Queries
from agent.session import Session
from atoll import __version__
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.clock import Clock
from atoll.errors import AtollError
from atoll.loop import CoreLoop

log = structlog.get_logger()

STARTS = Counter("atoll_agent_starts", "Runs started.")
STOPS = Counter("atoll_agent_stops", "Runs stopped.")
CHECKPOINTS = Counter("atoll_agent_checkpoints", "Checkpoints written, by result.", ["result"])
SESSIONS = Counter("atoll_agent_sessions_left", "Sessions left by this agent.")
STORAGE_OK = Gauge("atoll_agent_storage_ok", "1 while the checkpoint can be written; at 0 nothing new is started.")

GUARD_WATCH_S = 2.0
STORAGE_WATCH_S = 5.0
FIRST_OFFER_S = 2.0  # the first Hello waits so long for a Docker engine's answer


class Agent:
    """One node's agent; `run` is its life. Needs a running asyncio loop."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint, enrolment: Enrolment, clock: Clock) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._enrolment = enrolment
        self._guard = GuardKeeper(settings.state_dir, clock)
        self._core: CoreLoop[events.Event, commands.Command] = CoreLoop(
            Machine(_hello(settings), settings.timing), clock, self._execute, events.Woke()
        )
        self._addresses = Addresses(settings.run_network, settings.name)
        self._offer = offer(settings, self._core.post, clock, self._addresses.own)
        self._driver = self._offer.driver
        self._probes = Probes(self._driver, self._addresses, settings.probes_at_once)
        self._session = Session(settings, lambda: enrolment.files, self._core.post)
        self._queries = Queries(self._driver, self._session.send)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until cancelled; what runs on the node runs on. `ready` is called once the node has its identity.

        Raises AtollError when the region refuses this node.
        """
        STORAGE_OK.set(1)
        found = tuple(self._driver.adopt())
        log.info("booted", incarnation=self._checkpoint.incarnation, found=len(found), lost=self._checkpoint.lost)
        self._core.post(events.Booted(self._checkpoint.saved, self._checkpoint.incarnation, found, self._guard.terms()))
        try:
            async with asyncio.TaskGroup() as group:
                for work in (self._core.run(), self._connect(ready), self._watch_guard(), self._watch_storage()):
                    group.create_task(work)
                for work in self._offer.background:
                    group.create_task(work)
        finally:
            for task in self._tasks:
                task.cancel()
            self._queries.close()
            self._driver.close()

    def _execute(self, command: commands.Command) -> None:
        match command:
            case commands.SendUp():
                self._session.send(command)
            case commands.WriteCheckpoint():
                self._spawn(self._write(command))
            case commands.StartReplica(run, assign):
                STARTS.inc()
                log.info("start", run=str(run))
                own = self._addresses.own(run)
                listens = own if kind_of(assign.task) == objects_pb2.DRIVER_PROCESS else ""  # a container: everywhere
                node, region = self._settings.name, self._enrolment.region()
                told = environment(run, assign, node, region, listens, own or self._settings.address)
                self._driver.start(run, RunSpec(assign.task, told, tuple(assign.gpus)))
            case commands.StopReplica(run, grace_ms):
                STOPS.inc()
                log.info("stop", run=str(run), grace_ms=grace_ms)
                self._driver.stop(run, grace_ms)
            case commands.ProbeReplica():
                self._spawn(self._probe(command))
            case commands.Guard():
                self._arm(command)
            case commands.Reconnect():
                SESSIONS.inc()
                self._session.reconnect(command)
            case commands.Dial():
                self._session.dial(command)

    async def _write(self, command: commands.WriteCheckpoint) -> None:
        try:
            await asyncio.to_thread(self._checkpoint.write, command.saved)
        except OSError as error:
            CHECKPOINTS.labels("failed").inc()
            STORAGE_OK.set(0)
            reason = _unwritable(error)
            log.error("nothing new is started", reason=reason)
            self._core.post(events.CheckpointFailed(command.version, reason))
        else:
            CHECKPOINTS.labels("written").inc()
            STORAGE_OK.set(1)
            self._core.post(events.CheckpointWritten(command.version))

    async def _watch_storage(self) -> None:
        """So that a node with a full disk is known before work is sent to it."""
        while True:
            await asyncio.sleep(STORAGE_WATCH_S)
            try:
                await asyncio.to_thread(self._checkpoint.test)
            except OSError as error:
                STORAGE_OK.set(0)
                self._core.post(events.StorageTested(_unwritable(error)))
            else:
                STORAGE_OK.set(1)
                self._core.post(events.StorageTested(""))

    async def _probe(self, command: commands.ProbeReplica) -> None:
        self._core.post(await self._probes.check(command))

    def _arm(self, command: commands.Guard) -> None:
        try:
            self._guard.write(command)
        except OSError as error:
            log.error("the guard cannot be told: only the agent itself fences", reason=str(error))

    async def _connect(self, ready: Callable[[], None]) -> None:
        """What runs here is looked after meanwhile, however long the region is away."""
        await self._enrolment.identity()
        await self._offer.known(FIRST_OFFER_S)
        self._offer.watch(self._tell_offer)
        self._tell_offer()
        ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._session.run(self._queries.answer))
            group.create_task(self._renew())

    def _tell_offer(self) -> None:
        drivers = tuple(self._offer.kinds())
        log.info("drivers", offered=[objects_pb2.Driver.Name(kind) for kind in drivers])
        self._core.post(events.DriversOffered(drivers))
        self._core.post(events.ImagesHeld(self._offer.images()))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._settings.renew_check_s)
            expired = self._enrolment.unusable()
            if not expired and not self._enrolment.renewal_is_due():
                continue
            try:
                if expired:
                    log.error("the region takes this node's certificate no more", code="E4002", reason=expired)
                    await self._enrolment.identity()
                else:
                    await self._enrolment.renew(self._session.address)
            except (AtollError, OSError) as error:
                log.warning("the certificate could not be renewed, trying again", reason=str(error))
            else:
                await self._session.renew("a new certificate")

    async def _watch_guard(self) -> None:
        while True:
            await asyncio.sleep(GUARD_WATCH_S)
            with contextlib.suppress(OSError):
                self._guard.watch()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unwritable(error: OSError) -> str:
    return f"the checkpoint cannot be written: {error.strerror or error}"


def _hello(settings: Settings) -> agent_pb2.Hello:
    return agent_pb2.Hello(
        node=settings.name,
        capacity=inventory.capacity(settings),
        gpus=inventory.gpus(settings),
        labels=[objects_pb2.Label(key=key, value=value) for key, value in sorted(settings.labels.items())],
        version=__version__,
        address=settings.address,
    )
