"""A region as the global plane sees one: it keeps the highest slice and share per key, enforces C, and acknowledges.

A verified fake: the rules are those of docs/protocols.md section 4, in the fewest lines, and the property tests check
them against the global core under a network that loses, copies and reorders. Work is a number here, not slots.
"""

from collections.abc import Iterator

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector, total, vector

HARD = objects_pb2.ACCOUNT_HARD
Order = tuple[int, int, int]  # (store life, global term, revision)


class ModelRegion:
    """`used` is U of each tenant; `limit` is C."""

    def __init__(self, name: str = "north") -> None:
        self.name = name
        self.term = 1
        self.slices: dict[str, regional_pb2.SliceStamp] = {}
        self.limit: dict[str, Vector] = {}
        self.used: dict[str, Vector] = {}
        self.shares: dict[tuple[str, str], objects_pb2.Share] = {}

    # ---- what comes down

    def hear(self, message: regional_pb2.DownlinkMessage) -> list[regional_pb2.UplinkMessage]:
        """Applies it if it is news; what is said in return."""
        match message.WhichOneof("body"):
            case "welcome":
                return [*(self.ack(tenant) for tenant in self.slices), *self.reports()]
            case "slice_stamp":
                return self._hear_slice(message.slice_stamp)
            case "share":
                return self._hear_share(message.share)
        return []

    def _hear_slice(self, stamp: regional_pb2.SliceStamp) -> list[regional_pb2.UplinkMessage]:
        tenant = stamp.slice.tenant
        known = self.slices.get(tenant)
        if known is not None and not self.is_newer(stamp, known):
            return []
        self.slices[tenant] = stamp
        self.limit[tenant] = self.limit_of(stamp.slice, tenant)
        return [self.ack(tenant)]

    def is_newer(self, stamp: regional_pb2.SliceStamp, known: regional_pb2.SliceStamp) -> bool:
        return _order(stamp) > _order(known) and (stamp.slice.epoch, stamp.slice.seq) > (
            known.slice.epoch,
            known.slice.seq,
        )

    def limit_of(self, slice_: objects_pb2.Slice, tenant: str) -> Vector:
        used = self.used.get(tenant, Vector())
        return granted(slice_).at_most(shrink_target(slice_).at_least(used))

    def _hear_share(self, share: objects_pb2.Share) -> list[regional_pb2.UplinkMessage]:
        path = (share.metadata.tenant, share.metadata.name)
        known = self.shares.get(path)
        if known is not None and share.global_revision < known.global_revision:
            return []
        self.shares[path] = share
        return []

    # ---- what it does by itself

    def bind(self, tenant: str, amount: Vector) -> bool:
        """Charges, if C allows it: nothing above the target of a shrink."""
        used = self.used.get(tenant, Vector()) + amount
        slice_ = self.slices.get(tenant)
        if slice_ is None or not used.fits(self.limit[tenant].at_most(shrink_target(slice_.slice))):
            return False
        self.used[tenant] = used
        return True

    def release(self, tenant: str, amount: Vector) -> None:
        self.used[tenant] = self.used.get(tenant, Vector()) - amount.at_most(self.used.get(tenant, Vector()))

    def drain(self, tenant: str) -> None:
        """C follows what is used down to the target."""
        if stamp := self.slices.get(tenant):
            floor = shrink_target(stamp.slice).at_least(self.used.get(tenant, Vector()))
            self.limit[tenant] = self.limit[tenant].at_most(floor)

    def run_everything(self) -> None:
        """Uses what the shares need, as far as C goes; removed shares stop."""
        for tenant in self.slices:
            wanted = [share for (owner, _), share in self.shares.items() if owner == tenant and not share.removed]
            need = total([vector(t.resources.requests) * t.replicas for share in wanted for t in share.spec.tasks])
            self.used[tenant] = need.at_most(self.limit[tenant].at_most(shrink_target(self.slices[tenant].slice)))
            self.drain(tenant)

    # ---- what it says

    def ack(self, tenant: str) -> regional_pb2.UplinkMessage:
        slice_ = self.slices[tenant].slice
        use = objects_pb2.AccountUse(
            account=HARD,
            limit=self.limit[tenant].to_proto(),
            bound=self.used.get(tenant, Vector()).to_proto(),
        )
        ack = objects_pb2.SliceAck(
            tenant=tenant,
            region=self.name,
            region_term=self.term,
            epoch=slice_.epoch,
            seq=slice_.seq,
            uses=[use],
        )
        return regional_pb2.UplinkMessage(slice_ack=ack)

    def reports(self) -> Iterator[regional_pb2.UplinkMessage]:
        """Every share as it runs: what the tenant's use pays for, in order; or closed."""
        left = dict(self.used)
        for share in self.shares.values():
            tenant, tasks = share.metadata.tenant, []
            for task in () if share.removed else share.spec.tasks:
                request = vector(task.resources.requests)
                ready = min(task.replicas, _fitting(left.get(tenant, Vector()), request))
                left[tenant] = left.get(tenant, Vector()) - request * ready
                waiting = task.replicas - ready
                tasks.append(
                    regional_pb2.TaskReport(
                        task=task.name, desired=task.replicas, healthy=ready, waiting=waiting, unpaid=waiting
                    )
                )
            up, desired = sum(task.healthy for task in tasks), sum(task.desired for task in tasks)
            counts = objects_pb2.SlotCounts(desired=desired, bound=up, started=up, ready=up, serving=up)
            report = regional_pb2.WorkloadReport(
                tenant=share.metadata.tenant,
                workload=share.metadata.name,
                generation=share.metadata.generation,
                uid=share.metadata.uid,
                counts=counts,
                tasks=tasks,
                closed=share.removed,
            )
            yield regional_pb2.UplinkMessage(workload=report)


def granted(slice_: objects_pb2.Slice) -> Vector:
    return total([vector(account.granted) + vector(account.recovery) for account in slice_.accounts])


def shrink_target(slice_: objects_pb2.Slice) -> Vector:
    return total([vector(account.target) for account in slice_.accounts])


def _fitting(have: Vector, request: Vector) -> int:
    parts = [of // each for of, each in zip(have.amounts(), request.amounts(), strict=True) if each]
    return max(0, min(parts, default=0))


def _order(stamp: regional_pb2.SliceStamp) -> Order:
    return (stamp.store_life, stamp.global_term, stamp.global_revision)
