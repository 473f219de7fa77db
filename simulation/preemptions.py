"""What must be true of preemptions at every revision, checked by code that shares nothing with the programs.

A reservation names only attempts that are bound, on its own node, named by no other, and of a workload of a lower
priority, or charged to the burst of another tenant where the reservation is charged to the hard account; what that one
pays for is not stopped for what burst does. One region of a workload at a time has the leave to preempt; no node ever
has more bound to it than it has, so a preemptor is bound only when its victims are gone; and what is reserved there, by
members of gangs too, fits when they are: so nobody is stopped for what finds no room then.
"""

from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.resources import NOTHING, Vector, total, vector
from atoll.model.slots import AttemptId, SlotName, attempt_id, slot_name
from atoll.store.store import Change
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

BOUND, RESERVED = objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_RESERVED
DEFAULT = objects_pb2.PRIORITY_DEFAULT
BURST = objects_pb2.ACCOUNT_BURST


class Preemptions:
    def __init__(self, world: "World") -> None:
        self._seen = world.checkers.seen
        self._capacity = {node.name: vector(node.capacity) for node in world.nodes}
        self._priorities: dict[tuple[str, str, str], int] = {}  # by region and workload
        self._bound: dict[tuple[str, SlotName], objects_pb2.Slot] = {}
        self._held: dict[str, Vector] = {}  # by node
        self._reserved: dict[str, dict[tuple[str, SlotName], objects_pb2.Slot]] = {}  # by node
        self._touched: set[str] = set()  # nodes, in this revision
        self._leaves: dict[tuple[str, str], set[str]] = {}  # regions that may preempt for a workload

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
        place = (region, name)
        before = self._bound.pop(place, None)
        if before is not None:
            self._held[before.node] -= vector(before.vector)
            self._touched.add(before.node)
        for reserved in self._reserved.values():
            reserved.pop(place, None)
        if slot is None or slot.state not in (BOUND, RESERVED):
            return
        self._touched.add(slot.node)
        if slot.state == BOUND:
            self._bound[place] = slot
            self._held[slot.node] = self._held.get(slot.node, NOTHING) + vector(slot.vector)
            if not self._held[slot.node].fits(self._capacity[slot.node]):
                raise Violated(
                    f"capacity: {slot.node} has {self._held[slot.node]} bound of {self._capacity[slot.node]}"
                )
        else:
            self._reserved.setdefault(slot.node, {})[place] = slot
            if slot.reservation.victims:
                self._check_victims(region, slot, name)

    def _check_victims(self, region: str, slot: objects_pb2.Slot, name: SlotName) -> None:
        self._seen["preempted"] += 1
        self._seen["preempted by gangs"] += slot.reservation.gang
        own = self._priorities[region, name.tenant, name.workload]
        for victim, attempt in _named(slot):
            bound = self._bound.get((region, victim))
            if bound is None or attempt_id(bound.attempt) != attempt or bound.node != slot.node:
                raise Violated(f"preemption: {name} takes the room of {victim}, which is not bound on {slot.node}")
            self._seen["burst reclaimed"] += bound.account == BURST and slot.account != BURST
            if bound.account != BURST and slot.account == BURST:
                raise Violated(f"preemption: {name} stops {victim}, which its tenant has the quota for, by burst")
            if bound.account == BURST and slot.account != BURST and victim.tenant != name.tenant:
                continue
            if self._priorities[region, victim.tenant, victim.workload] >= own:
                raise Violated(f"preemption: {name} stops {victim}, whose priority is not lower")

    def check_nodes(self) -> None:
        """After a whole revision of a region's store."""
        for node in self._touched:
            reserved = self._reserved.get(node, {})
            victims = [(region, *named) for (region, _), slot in reserved.items() for named in _named(slot)]
            still = [
                (region, name, attempt)
                for region, name, attempt in victims
                if (bound := self._bound.get((region, name))) and attempt_id(bound.attempt) == attempt
            ]
            if len(set(still)) < len(still):
                raise Violated(f"preemption: two take the room of one on {node}: {still}")
            freed = total([vector(self._bound[region, name].vector) for region, name, _ in still])
            wanted = total([vector(slot.vector) for slot in reserved.values()])
            room = self._capacity[node] - self._held.get(node, NOTHING)
            if not wanted.fits(room + freed):
                raise Violated(f"preemption: {still} are stopped for nothing: what is reserved on {node} would not fit")
        self._touched.clear()


def _named(slot: objects_pb2.Slot) -> list[tuple[SlotName, AttemptId]]:
    return [(slot_name(victim.slot), attempt_id(victim.attempt)) for victim in slot.reservation.victims]
