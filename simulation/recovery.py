"""Services that are to have room in their other regions should any one be lost (N-1): what users ask for, and what
they must have been told in the end.

Told from the records of nodes, shares, tenants and regions as they are, for each region by itself and each set of
those that would be left; nothing is kept between two looks. Decides for a service which of its regions cannot be lost,
by the definition (docs/manifests.md#the-loss-of-a-region): what leaves the region needs room where it may go, beside
all others of its priority or a higher one that ask for the same and may go nowhere else. At admission only so much is
checked as cannot change meanwhile: what requires it names more than one region.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector, total, vector
from atoll.model.selectors import matches
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import Change
from simulation.quotas import may_burst
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

CONDITION, SO, FEASIBLE = "RecoveryFeasible", "RoomElsewhere", objects_pb2.CONDITION_STATUS_TRUE
UNSAID, NONE = objects_pb2.RECOVERY_UNSPECIFIED, objects_pb2.RECOVERY_NONE
PREFERRED, REQUIRED = objects_pb2.RECOVERY_PREFERRED, objects_pb2.RECOVERY_REQUIRED
REAL_TIME = objects_pb2.PRIORITY_REAL_TIME
OVER = (objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED)
CRITICAL = 0.3  # of the services have the priority that asks for it without a word
ELSEWHERE = 0.7  # of those that were to run in one region only
Path = tuple[str, str]  # tenant and workload


def draw(world: "World", spec: objects_pb2.WorkloadSpec) -> None:
    """What a service asks for; nothing where there is one region only, or when this history has no such feature."""
    if not world.shape.features.recovery or len(world.regions) == 1:
        return
    rng = world.kernel.random
    spec.recovery = rng.choice([UNSAID, NONE, PREFERRED, PREFERRED, PREFERRED, REQUIRED])
    if rng.random() < CRITICAL:
        spec.priority = REAL_TIME
    if len(spec.regions) == 1 and not spec.spread.fixed and rng.random() < ELSEWHERE:
        spec.regions[:] = rng.sample(world.regions, len(world.regions))


def asks(workload: objects_pb2.Workload) -> bool:
    spec = workload.spec
    if spec.type == objects_pb2.WORKLOAD_TYPE_JOB:
        return False
    return spec.recovery in (PREFERRED, REQUIRED) or (spec.recovery == UNSAID and spec.priority == REAL_TIME)


def look_at_admission(before: objects_pb2.Workload | None, after: objects_pb2.Workload) -> None:
    """At a workload's new revision."""
    newly = before is None or before.spec.recovery != REQUIRED
    if newly and after.spec.recovery == REQUIRED and len(named := _named(after.spec)) == 1:
        raise Violated(f"recovery: {after.metadata.name} was admitted, and could not do without {named[0]}")


def look_at_status(world: "World", change: Change) -> None:
    """Counts what services were told."""
    if not world.shape.features.recovery:
        return
    was, now = (
        _told(objects_pb2.WorkloadStatus.FromString(item.value if item else b""))
        for item in (change.previous, change.item)
    )
    if now and (was is None or was.status != now.status):
        can = now.status == FEASIBLE
        world.checkers.seen["told that regions may be lost" if can else "told that a region may not be lost"] += 1


@dataclass(frozen=True)
class Losses:
    """`shares`: of the global plane's store. `nodes`: the records of each region's."""

    workloads: Mapping[Path, objects_pb2.Workload]
    tenants: Mapping[str, objects_pb2.Tenant]
    places: Mapping[str, objects_pb2.Region]
    shares: Sequence[objects_pb2.Share]
    nodes: Mapping[str, Sequence[objects_pb2.Node]]
    state: MemoryState

    def missing(self) -> str:
        """A service that was not told what is so. Of several reasons against it any one is told."""
        for path, workload in sorted(self.workloads.items()):
            told = _told(self._status(path))
            if not asks(workload) or (workload.spec.recovery != REQUIRED and len(self._allowed(workload)) < 2):
                if told is not None:
                    return f"recovery: {path} does not ask, and was told: {told.message}"
                continue
            reasons = set(self._against(workload)) or {SO}
            if told is None or told.reason not in reasons or (told.status == FEASIBLE) != (told.reason == SO):
                was = f"{told.reason}: {told.message}" if told else "nothing"
                return f"recovery: {path} was told {was}, it is {', '.join(sorted(reasons))}"
        return ""

    def _against(self, workload: objects_pb2.Workload) -> Iterator[str]:
        """Why not every one of its regions can be lost."""
        allowed = self._allowed(workload)
        if len(allowed) < 2:
            yield "OneRegion"
            return
        if self._beyond_quota(workload):
            yield "QuotaMissing"
        for lost in allowed:
            yield from self._without(lost, allowed, workload)

    def _without(self, lost: str, allowed: Sequence[str], workload: objects_pb2.Workload) -> Iterator[str]:
        left = [name for name in self._open() if name != lost]
        home, leaving = [name for name in left if name in allowed], self._leaving(workload, lost, allowed)
        if not any(leaving):
            return
        largest = [self._largest(name) for name in home]
        if any(largest) and not all(any(_request(t).fits(most) for most in largest) for t in workload.spec.tasks):
            yield "NodeTooSmall"
        rooms = {name: self._room(name, workload) for name in left}
        if any(task.gang for task in workload.spec.tasks):  # whole, in one region
            if not any(_holds(rooms[name], leaving, leaving) for name in home):
                yield "RoomMissing"
            return
        rivals = self._rivals(workload, lost, left)
        for together in _supersets(home, left):
            need = total([leaving, *(asked for regions, asked in rivals if regions <= together)])
            if not _holds(total([rooms[name] for name in sorted(together)]), need, leaving):
                yield "RoomMissing"

    def _leaving(self, workload: objects_pb2.Workload, lost: str, allowed: Sequence[str]) -> Vector:
        """All of it but what runs elsewhere and may stay: a region that only takes nothing new keeps what it has."""
        kept = [s for s in self._own(workload) if s.region != lost and s.region in allowed]
        staying = [_asked(share) for share in kept if not self.places[share.region].draining]
        return (_demand(workload) - total(staying)).at_least(Vector())

    def _rivals(
        self, workload: objects_pb2.Workload, lost: str, left: Sequence[str]
    ) -> list[tuple[frozenset[str], Vector]]:
        """Where every other one that asks, and gives way no sooner, may go, and with how much. What regions are still
        to be told of counts. Who may go nowhere takes no room."""
        found = []
        for other in self.workloads.values():
            if other is workload or not asks(other) or other.spec.priority < workload.spec.priority:
                continue
            regions = frozenset(name for name in self._allowed(other) if name in left)
            untold = (_demand(other) - total([_asked(share) for share in self._own(other)])).at_least(Vector())
            asked = total([untold, *(_asked(share) for share in self._own(other) if share.region == lost)])
            if regions:
                found.append((regions, asked))
        return found

    # ---- one region

    def _open(self) -> list[str]:
        active = objects_pb2.REGION_STATE_ACTIVE
        return [name for name, place in sorted(self.places.items()) if place.state == active and not place.cordoned]

    def _room(self, region: str, workload: objects_pb2.Workload) -> Vector:
        """What is on nodes that take work, but for what work of its priority or a higher one asks for, and what others
        have protected."""
        ready = objects_pb2.NODE_STATE_READY
        open_ = [node for node in self.nodes[region] if node.state == ready and not node.cordoned]
        room = total([vector(node.capacity) for node in open_])
        for name, tenant in self.tenants.items():
            asked = total([_asked(share) for share in self._claiming(region, name, workload.spec.priority)])
            kept = total([vector(part.amount) for part in tenant.spec.protected if part.region == region])
            protected = name != workload.metadata.tenant and not tenant.metadata.deleted_ms
            room -= asked.at_least(kept) if protected else asked
        return room.at_least(Vector())

    def _claiming(self, region: str, tenant: str, priority: int) -> list[objects_pb2.Share]:
        return [
            share
            for share in self.shares
            if (share.region, share.metadata.tenant) == (region, tenant)
            and share.spec.priority >= priority
            and self._status((tenant, share.metadata.name)).job.phase not in OVER
        ]

    def _largest(self, region: str) -> Vector:
        """The most that any one node has, by dimension."""
        most = Vector()
        for node in self.nodes[region]:
            most = most.at_least(vector(node.capacity))
        return most

    # ---- one workload

    def _own(self, workload: objects_pb2.Workload) -> list[objects_pb2.Share]:
        return [share for share in self.shares if share.metadata.uid == workload.metadata.uid]

    def _allowed(self, workload: objects_pb2.Workload) -> list[str]:
        spec, found = workload.spec, []
        for name in _named(spec) or sorted(self.places):
            have = {label.key: label.value for label in self.places[name].metadata.labels}
            if all(matches(requirement, have) for requirement in spec.spread.residency):
                found.append(name)
        return found

    def _beyond_quota(self, workload: objects_pb2.Workload) -> bool:
        """Quota is global and moves with the work: it only has to pay for all of it at once."""
        tenant = self.tenants[workload.metadata.tenant].spec
        percent = tenant.burst_percent if all(may_burst(workload.spec, task) for task in workload.spec.tasks) else 0
        most = Vector(*(amount + amount * percent // 100 for amount in vector(tenant.quota)))
        return not _demand(workload).fits(most)

    def _status(self, path: Path) -> objects_pb2.WorkloadStatus:
        item = self.state.get(keys.status(*path))
        return objects_pb2.WorkloadStatus.FromString(item.value if item else b"")


def _told(status: objects_pb2.WorkloadStatus) -> objects_pb2.Condition | None:
    return next((condition for condition in status.conditions if condition.type == CONDITION), None)


def _named(spec: objects_pb2.WorkloadSpec) -> list[str]:
    """None: any region will do."""
    return list(spec.regions) or [count.region for count in spec.spread.fixed]


def _request(task: objects_pb2.Task) -> Vector:
    return vector(task.resources.requests)


def _demand(workload: objects_pb2.Workload) -> Vector:
    """Of all replicas of a service."""
    return total([_request(task) * task.replicas for task in workload.spec.tasks])


def _asked(share: objects_pb2.Share) -> Vector:
    """By all that may run of it at once; of a job with its second copies, within its part of a parallelism."""
    found = Vector()
    for task in share.spec.tasks:
        most = task.replicas + min(task.replicas, task.speculation.most)
        parts = [part.replicas for part in share.parallel if part.task == task.name]
        found += _request(task) * min([most, *parts])
    return found


def _holds(room: Vector, need: Vector, asked: Vector) -> bool:
    """In each dimension in which anything is asked for."""
    return all(have >= want for have, want, one in zip(room, need, asked, strict=True) if one)


def _supersets(home: Sequence[str], of: Sequence[str]) -> Iterator[frozenset[str]]:
    """Every set of these regions in which all of `home` is."""
    others = [name for name in of if name not in home]
    for count in range(len(others) + 1):
        for more in combinations(others, count):
            yield frozenset([*home, *more])
