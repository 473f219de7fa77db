"""Which drivers this node has, by its settings, and which of them work at the moment."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from agent.config import Settings
from agent.core.runs import RunName
from agent.drivers.by_task import ByTask, Kind
from agent.drivers.docker import DockerDriver
from agent.drivers.driver import Driver, Notify
from agent.drivers.fake import FakeDriver, obedient, pump
from agent.drivers.process import ProcessDriver
from atoll.api.v1 import objects_pb2
from atoll.clock import Clock


@dataclass(slots=True)
class Offer:
    """`always`: the kinds that need nothing else to work. `background` is to be run beside the driver."""

    driver: Driver
    always: list[Kind]
    docker: DockerDriver | None = None
    background: list[Coroutine[Any, Any, None]] = field(default_factory=list)

    def kinds(self) -> list[Kind]:
        """What works now, sorted; UNSPECIFIED alone when nothing does: an empty list says nothing."""
        engine = [objects_pb2.DRIVER_DOCKER] if self.docker and self.docker.available else []
        return sorted([*self.always, *engine]) or [objects_pb2.DRIVER_UNSPECIFIED]

    def images(self) -> tuple[str, ...]:
        """Of containers, as far as they are here."""
        return self.docker.images if self.docker else ()

    def watch(self, changed: Callable[[], None]) -> None:
        """`changed` is called when `kinds` or `images` may have changed."""
        if self.docker:
            self.docker.watch_engine(changed)

    async def known(self, timeout_s: float) -> None:
        """Until an engine has answered or refused once, but no longer than that."""
        if self.docker is None:
            return
        told = asyncio.Event()
        self.docker.watch_engine(told.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (self.docker.available or self.docker.unavailable):
                    await told.wait()
                    told.clear()


def offer(settings: Settings, notify: Notify, clock: Clock, own_address: Callable[[RunName], str]) -> Offer:
    process, docker = objects_pb2.DRIVER_PROCESS, objects_pb2.DRIVER_DOCKER
    match settings.driver:
        case "fake":
            fake = FakeDriver(notify, obedient, clock.now_ms())
            kinds = [process, docker, objects_pb2.DRIVER_FAKE]
            return Offer(fake, kinds, background=[pump(fake, clock)])
        case "process":
            return Offer(_process(settings, notify), [process])
        case "docker":
            engine = _docker(settings, notify, own_address)
            return Offer(engine, [], engine)
    engine = _docker(settings, notify, own_address)
    both = ByTask({process: _process(settings, notify), docker: engine}, notify)
    return Offer(both, [process], engine)


def _process(settings: Settings, notify: Notify) -> ProcessDriver:
    return ProcessDriver(
        settings.state_dir,
        notify,
        log_bytes=settings.log_mib << 20,
        finished_runs=settings.finished_runs,
        kill_wait_s=settings.kill_wait_s,
    )


def _docker(settings: Settings, notify: Notify, own_address: Callable[[RunName], str]) -> DockerDriver:
    return DockerDriver(
        settings.state_dir,
        notify,
        settings.docker,
        node=settings.name,
        address=settings.address,
        log_bytes=settings.log_mib << 20,
        finished_runs=settings.finished_runs,
        own_address=own_address,
    )
