"""Several drivers on one node: each run goes to the driver that its task names, or else that its image implies."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from agent.core.events import DriverStartFailed
from agent.core.runs import Found, RunName
from agent.drivers.driver import Cursor, Driver, Notify, RunSpec
from atoll.api.v1 import objects_pb2
from atoll.model.slots import SlotName

MOST_SLOTS = 10_000  # whose newest run is remembered

Kind: TypeAlias = objects_pb2.Driver.ValueType


def kind_of(task: objects_pb2.Task) -> Kind:
    by_image = objects_pb2.DRIVER_DOCKER if task.image else objects_pb2.DRIVER_PROCESS
    return task.driver or by_image


class ByTask:
    def __init__(self, drivers: Mapping[Kind, Driver], notify: Notify) -> None:
        self._drivers = drivers
        self._notify = notify
        self._newest: dict[SlotName, tuple[RunName, Driver]] = {}

    def adopt(self) -> Sequence[Found]:
        found = []
        for driver in self._drivers.values():
            for item in driver.adopt():
                self._note(item.run, driver)
                found.append(item)
        return found

    def start(self, run: RunName, spec: RunSpec) -> None:
        kind = kind_of(spec.task)
        driver = self._drivers.get(kind)
        if driver is None:
            self._notify(DriverStartFailed(run, f"DriverMissing: this node has no {objects_pb2.Driver.Name(kind)}"))
            return
        self._note(run, driver)
        driver.start(run, spec)

    def stop(self, run: RunName, grace_ms: int) -> None:
        for driver in self._drivers.values():  # those that do not know it do nothing
            driver.stop(run, grace_ms)

    async def logs(self, slot: SlotName, tail_lines: int, after: Cursor | None = None) -> tuple[bytes, Cursor]:
        known = self._newest.get(slot)
        return await known[1].logs(slot, tail_lines, after) if known else (b"", Cursor())

    async def exec_check(self, run: RunName, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
        known = self._newest.get(run.slot)
        return await known[1].exec_check(run, command, timeout_ms) if known else (False, "it does not run")

    def close(self) -> None:
        for driver in self._drivers.values():
            driver.close()

    def _note(self, run: RunName, driver: Driver) -> None:
        known = self._newest.get(run.slot)
        if known is not None and run < known[0]:
            return
        self._newest.pop(run.slot, None)
        self._newest[run.slot] = (run, driver)
        if len(self._newest) > MOST_SLOTS:
            del self._newest[next(iter(self._newest))]
