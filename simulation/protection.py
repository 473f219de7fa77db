"""What tenants have protected in a region is never taken by others: checked by the records at each revision.

A new reservation or binding of a tenant leaves free, on the nodes that take work, all that the others have protected
and do not use, in each dimension that it asks for; what its victims free counts. A reservation stops no replica by
which that replica's tenant would fall below its part. Leaders decide by sums of a moment before: legal is what was
right at any revision since the earliest moment at which it can have been decided.
"""

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model.resources import NOTHING, Vector, vector
from atoll.model.slots import SlotName, slot_name
from atoll.store.store import Change
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

CHARGED = (objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_BOUND)
BOUND = objects_pb2.SLOT_STATE_BOUND
BURST = objects_pb2.ACCOUNT_BURST  # neither fills a part nor is kept by it
DECIDED_MS = 15_000  # before, at most: a leader that is cut off for longer has lost its term
CHANCE = 0.4  # of a tenant to have a part of a region protected, when it is changed
AMOUNTS_MILLI = (500, 2_000, 4_000)  # of processors


def draw(world: "World", spec: objects_pb2.TenantSpec) -> None:
    """Some parts of regions, which may be more than the quota or the regions have: those are refused."""
    rng = world.kernel.random
    for region in world.regions:
        if rng.random() < CHANCE:
            cpu = rng.choice(AMOUNTS_MILLI)
            spec.protected.add(region=region, amount=Vector(cpu_milli=cpu, memory_mib=cpu).to_proto())


class Sums(NamedTuple):
    """Of one revision."""

    at_ms: int
    free: Vector  # on the nodes that take work
    protected: dict[str, Vector]  # by tenant
    held: dict[str, Vector]  # reserved or bound
    bound: dict[str, Vector]

    def spare(self, tenant: str) -> Vector:
        """What is free beside what others have protected and do not use."""
        spare = self.free
        for other, part in self.protected.items():
            if other != tenant:
                spare -= (part - self.held.get(other, NOTHING)).at_least(NOTHING)
        return spare


class Protection:
    """One region's."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._free_on: dict[str, Vector] = {}  # by node
        self._open: set[str] = set()
        self._slots: dict[SlotName, objects_pb2.Slot] = {}  # those charged
        self._zombies: dict[bytes, tuple[str, Vector]] = {}
        self._protected: dict[str, Vector] = {}
        self._held: dict[str, Vector] = {}  # by tenant
        self._bound: dict[str, Vector] = {}
        self._sums: deque[Sums] = deque()
        self._new: list[tuple[SlotName, objects_pb2.Slot]] = []  # of this revision

    def look_at_node(self, change: Change) -> None:
        name = change.key.decode().rpartition("/")[2]
        before, after = (
            objects_pb2.Node.FromString(item.value if item else b"") for item in (change.previous, change.item)
        )
        self._charge(name, vector(before.capacity) - vector(after.capacity))
        closed = after.state != objects_pb2.NODE_STATE_READY or after.cordoned or after.draining
        (self._open.discard if closed else self._open.add)(name)

    def look_at_zombie(self, change: Change) -> None:
        if known := self._zombies.pop(change.key, None):
            self._charge(known[0], -known[1])
        if change.item:
            zombie = objects_pb2.Zombie.FromString(change.item.value)
            self._zombies[change.key] = zombie.node, vector(zombie.vector)
            self._charge(zombie.node, vector(zombie.vector))

    def look_at_slice(self, slice_: objects_pb2.RegionSlice) -> None:
        self._protected[slice_.tenant] = vector(slice_.protected)

    def look_at_slot(self, slot: objects_pb2.Slot | None, name: SlotName) -> None:
        before = self._slots.pop(name, None)
        if before is not None:
            self._enter(before, name, -vector(before.vector))
        if slot is None or slot.state not in CHARGED:
            return
        self._slots[name] = slot
        self._enter(slot, name, vector(slot.vector))
        if before is None or before.attempt != slot.attempt:
            self._new.append((name, slot))

    def _enter(self, slot: objects_pb2.Slot, name: SlotName, amount: Vector) -> None:
        self._charge(slot.node, amount)
        if slot.account == BURST:
            return
        self._held[name.tenant] = self._held.get(name.tenant, NOTHING) + amount
        if slot.state == BOUND:
            self._bound[name.tenant] = self._bound.get(name.tenant, NOTHING) + amount

    def _charge(self, node: str, amount: Vector) -> None:
        self._free_on[node] = self._free_on.get(node, NOTHING) - amount

    def check(self) -> None:
        """After a whole revision."""
        now_ms, new = self._world.kernel.now_ms, self._new
        self._new = []
        if not any(self._protected.values()) and not self._sums:
            return
        if new and self._sums:
            self._check_room(new)
            self._check_victims(new)
        self._sums.append(self._summed(now_ms))
        while len(self._sums) > 1 and self._sums[1].at_ms <= now_ms - DECIDED_MS:
            self._sums.popleft()

    def _summed(self, now_ms: int) -> Sums:
        free = NOTHING
        for node in self._open:
            free += self._free_on[node].at_least(NOTHING)
        return Sums(now_ms, free, dict(self._protected), dict(self._held), dict(self._bound))

    def _check_room(self, new: list[tuple[SlotName, objects_pb2.Slot]]) -> None:
        asked: dict[str, Vector] = {}
        for name, slot in new:
            freed = [self._slots[slot_name(victim.slot)] for victim in slot.reservation.victims]
            need = vector(slot.vector)
            for victim in freed:
                need -= vector(victim.vector)
            asked[name.tenant] = asked.get(name.tenant, NOTHING) + need
        for tenant, amount in asked.items():
            if any(self._protected[other] for other in self._protected if other != tenant):
                self._world.checkers.seen["bound beside what is protected"] += 1
            if not any(_leaves(sums.spare(tenant), amount) for sums in reversed(self._sums)):
                spare = self._sums[-1].spare(tenant)
                raise Violated(f"protected: {tenant} takes {amount}, and others leave it {spare}")

    def _check_victims(self, new: list[tuple[SlotName, objects_pb2.Slot]]) -> None:
        """All that are named count: those of earlier reservations still hold their parts."""
        named = {
            slot_name(victim.slot): victim.attempt
            for slot in self._slots.values()
            for victim in slot.reservation.victims
        }
        going: dict[str, Vector] = {}
        for name, attempt in named.items():
            slot = self._slots.get(name)
            if slot is not None and slot.state == BOUND and slot.attempt == attempt and slot.account != BURST:
                going[name.tenant] = going.get(name.tenant, NOTHING) + vector(slot.vector)
        stopped = {
            (slot_name(victim.slot).tenant, name.tenant) for name, slot in new for victim in slot.reservation.victims
        }
        for owner, tenant in sorted(stopped):
            if owner != tenant and not any(_keeps(sums, owner, going.get(owner, NOTHING)) for sums in self._sums):
                raise Violated(f"protected: {tenant} stops {going[owner]} of {owner}, which falls below its part")


def _leaves(spare: Vector, amount: Vector) -> bool:
    return all(asked <= left for asked, left in zip(amount, spare, strict=True) if asked > 0)


def _keeps(sums: Sums, owner: str, going: Vector) -> bool:
    part = sums.protected.get(owner, NOTHING)
    stay = sums.bound.get(owner, NOTHING) - going
    return all(left >= kept for left, kept, goes in zip(stay, part, going, strict=True) if kept and goes)
