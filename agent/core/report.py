"""What the region is told of the attempts here, and whether more can be started: changes, batched; all in a Hello.

A certificate is told only when it is durable. What the leader was told is remembered, so that nothing is said twice; a
new leader's knowledge starts from its Hello.
"""

from agent.core.fencing import Ledger
from agent.core.replica import ACCEPTED, CLOSED
from agent.core.runs import Rank
from agent.core.slots import Slots
from atoll.api.v1 import agent_pb2
from atoll.model.slots import SlotName

Told = dict[SlotName, dict[Rank, agent_pb2.AttemptStatus]]


class Report:
    def __init__(self, ledger: Ledger, slots: Slots) -> None:
        self._ledger = ledger
        self._slots = slots
        self._told: Told = {}
        self._changed: dict[SlotName, None] = {}
        self._storage_failure = ""
        self._told_unfit = ""
        self.images: tuple[str, ...] = ()  # held here, sorted
        self._told_images: tuple[str, ...] = ()

    def changed(self, slots: list[SlotName]) -> None:
        self._changed.update(dict.fromkeys(slots))

    def storage(self, failure: str) -> None:
        """Why nothing can be started for now; empty = it can."""
        if failure != self._storage_failure:
            self._storage_failure = failure
            self.changed(self._slots.slots())

    @property
    def unfit(self) -> str:
        """Why nothing new can be started on this node; empty = it can."""
        return f"StorageFailed: {self._storage_failure}" if self._storage_failure else ""

    @property
    def pending(self) -> bool:
        return bool(self._changed) or self.unfit != self._told_unfit or self.images != self._told_images

    def full(self) -> Told:
        """The inventory of a Hello."""
        names = sorted({*self._ledger.slots(), *self._slots.slots()})
        return {slot: statuses for slot in names if (statuses := self._statuses(slot))}

    def begin(self, told: Told, unfit: str, images: tuple[str, ...]) -> None:
        """From here on it is told a leader that knows this much, from its Hello."""
        self._told, self._told_unfit, self._told_images = dict(told), unfit, images
        self._changed.update(dict.fromkeys(sorted({*told, *self._ledger.slots(), *self._slots.slots()})))

    def repeat(self, slot: SlotName, rank: Rank) -> None:
        """The region seems not to know this one: say it again."""
        self._told.get(slot, {}).pop(rank, None)
        self._changed[slot] = None

    def changes(self) -> agent_pb2.StatusReport | None:
        """None: nothing that is not known."""
        news = []
        for slot in self._changed:
            before, now = self._told.get(slot, {}), self._statuses(slot)
            news += [status for rank, status in now.items() if before.get(rank) != status]
            self._told[slot] = now
            if not now:
                del self._told[slot]
        self._changed.clear()
        if not news and self.unfit == self._told_unfit and self.images == self._told_images:
            return None
        report = agent_pb2.StatusReport(attempts=news, unfit=self.unfit)
        if self.images != self._told_images:
            report.images.CopyFrom(agent_pb2.Images(names=self.images))
        self._told_unfit, self._told_images = self.unfit, self.images
        return report

    def _statuses(self, slot: SlotName) -> dict[Rank, agent_pb2.AttemptStatus]:
        found = {}
        if self._ledger.is_durable(slot):
            for certificate in self._ledger.record(slot).certificates:
                found[certificate.rank] = agent_pb2.AttemptStatus(
                    slot=slot.to_proto(),
                    attempt=certificate.rank.attempt.to_proto(),
                    generation=certificate.generation,
                    phase=CLOSED,
                    restarts=certificate.restarts,
                    exit=certificate.exit.to_proto(),
                    message=certificate.exit.message,
                )
        for replica in self._slots.replicas(slot):
            status = found[replica.run.rank] = replica.status()
            if status.phase == ACCEPTED and self._storage_failure:
                status.message = f"StorageFailed: not started: {self._storage_failure}"
        return found


def inventory(told: Told) -> list[agent_pb2.AttemptStatus]:
    return [status for statuses in told.values() for status in statuses.values()]


def certificates(told: Told) -> dict[SlotName, frozenset[Rank]]:
    closed = {s: frozenset(r for r, a in known.items() if a.phase == CLOSED) for s, known in told.items()}
    return {slot: ranks for slot, ranks in closed.items() if ranks}
