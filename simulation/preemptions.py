"""What must be true of preemptions at every revision, checked by code that shares nothing with the programs.

A reservation names only attempts that are bound, on its own node, and of a workload of a lower priority; one region of
a workload at a time has the leave to preempt; and no node ever has more bound to it than it has, so a preemptor is
bound only when its victims are gone.
"""

from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.resources import NOTHING, Vector, total, vector
from atoll.model.slots import SlotName, attempt_id, slot_name
from atoll.store.store import Change
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

BOUND, RESERVED = objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_RESERVED
DEFAULT = objects_pb2.PRIORITY_DEFAULT


class Preemptions:
    def __init__(self, world: "World") -> None:
        self._capacity = {node.name: vector(node.capacity) for node in world.nodes}
        self._priorities: dict[tuple[str, str, str], int] = {}  # by region and workload
        self._bound: dict[tuple[str, SlotName], objects_pb2.Slot] = {}
        self._held: dict[str, Vector] = {}  # by node
        self._leaves: dict[tuple[str, str], set[str]] = {}  # regions that may preempt for a workload
        self.count = 0

    def look_at_share(self, region: str, share: objects_pb2.Share) -> None:
        """As a region has admitted it."""
        of = share.metadata
        self._priorities[region, of.tenant, of.name] = share.spec.priority or DEFAULT

    def look_at_leave(self, change: Change) -> None:
        """A share as the global plane says."""
        _, _, _, region, tenant, name = change.key.decode().split("/")
        leaves = self._leaves.setdefault((tenant, name), set())
        share = objects_pb2.Share.FromString(change.item.value) if change.item else objects_pb2.Share()
        (leaves.add if share.preempts else leaves.discard)(region)

    def check_leaves(self) -> None:
        """After a whole revision of the global plane's store."""
        for path, leaves in self._leaves.items():
            if len(leaves) > 1:
                raise Violated(f"preemption: {path} may preempt in {sorted(leaves)} at once")

    def look_at_slot(self, region: str, slot: objects_pb2.Slot | None, name: SlotName) -> None:
        before = self._bound.pop((region, name), None)
        if before is not None:
            self._held[before.node] -= vector(before.vector)
        if slot is None:
            return
        if slot.state == BOUND:
            self._bound[region, name] = slot
            self._held[slot.node] = self._held.get(slot.node, NOTHING) + vector(slot.vector)
            if not self._held[slot.node].fits(self._capacity[slot.node]):
                raise Violated(
                    f"capacity: {slot.node} has {self._held[slot.node]} bound of {self._capacity[slot.node]}"
                )
        elif slot.state == RESERVED and slot.reservation.victims:
            self._check_victims(region, slot, name)

    def _check_victims(self, region: str, slot: objects_pb2.Slot, name: SlotName) -> None:
        self.count += 1
        own = self._priorities[region, name.tenant, name.workload]
        victims = [(slot_name(victim.slot), attempt_id(victim.attempt)) for victim in slot.reservation.victims]
        for victim, attempt in victims:
            bound = self._bound.get((region, victim))
            if bound is None or attempt_id(bound.attempt) != attempt or bound.node != slot.node:
                raise Violated(f"preemption: {name} takes the room of {victim}, which is not bound on {slot.node}")
            if self._priorities[region, victim.tenant, victim.workload] >= own:
                raise Violated(f"preemption: {name} stops {victim}, whose priority is not lower")
        room = self._capacity[slot.node] - self._held[slot.node]
        freed = total([vector(self._bound[region, victim].vector) for victim, _ in victims])
        if not vector(slot.vector).fits(room + freed):
            raise Violated(f"preemption: {name} stops {victims} for nothing: it would not fit on {slot.node}")
