"""What must be true of quotas in the end: each account of a tenant by itself. Each check says what is still missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector, total, vector

if TYPE_CHECKING:
    from simulation.convergence import RegionView

HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST


def may_burst(spec: objects_pb2.WorkloadSpec, task: objects_pb2.Task) -> bool:
    return not task.gang and 0 < spec.priority <= objects_pb2.PRIORITY_LOW


def _protected(tenant: objects_pb2.Tenant, region: str) -> Vector:
    return total([vector(part.amount) for part in tenant.spec.protected if part.region == region])


@dataclass(frozen=True)
class Quotas:
    tenants: Mapping[str, objects_pb2.Tenant]
    workloads: Mapping[tuple[str, str], objects_pb2.Workload]
    budgets: Mapping[str, objects_pb2.Budget]
    slices: Sequence[objects_pb2.Slice]
    regions: "Sequence[RegionView]"

    def missing(self) -> str:
        """What is granted is needed, protected or in use; what is free is needed nowhere; a lowered quota has come down
        to what is in use or protected, and a deleted tenant is gone."""
        for name, tenant in sorted(self.tenants.items()):
            if tenant.metadata.deleted_ms:
                if not any(path[0] == name for path in self.workloads):
                    return f"tenant {name} is deleted and not gone"
                continue
            hard, burst = (self._account(name, account) for account in (HARD, BURST))
            kept = total([view.used(name).at_least(_protected(tenant, view.region)) for view in self.regions])
            if not vector(hard.effective).fits(vector(tenant.spec.quota).at_least(kept)):
                return f"{name} still has {vector(hard.effective)} of {vector(tenant.spec.quota)}"
            most = Vector(*(amount * tenant.spec.burst_percent // 100 for amount in vector(tenant.spec.quota)))
            if not vector(burst.effective).fits(
                most.at_least(total([view.used(name, BURST) for view in self.regions]))
            ):
                return f"{name} still has {vector(burst.effective)} of {most} burst"
            for view in self.regions:
                if missing := self._slice(view, name, vector(hard.free)) or self._burst(view, name, vector(burst.free)):
                    return missing
        return ""

    def _account(self, tenant: str, account: int) -> objects_pb2.AccountBudget:
        found = [part for part in self.budgets[tenant].accounts if part.account == account]
        return found[0] if found else objects_pb2.AccountBudget()

    def _granted(self, view: "RegionView", tenant: str, account: int) -> Vector:
        own = [slice_ for slice_ in self.slices if (slice_.tenant, slice_.region) == (tenant, view.region)]
        return total([vector(part.granted) for slice_ in own for part in slice_.accounts if part.account == account])

    def _burst(self, view: "RegionView", tenant: str, free: Vector) -> str:
        """None is granted that neither runs nor waits for it; and none is free that a replica waits for which the hard
        account does not pay for."""
        granted, used = self._granted(view, tenant, BURST), view.used(tenant, BURST)
        hard = self._granted(view, tenant, HARD) - view.used(tenant)
        waiting = [one for one in view.bursting(tenant) if one]
        if not granted.fits(used + total(waiting)):
            return f"{tenant} keeps {granted} of burst in {view.region}, where {used} runs by it"
        for one in waiting:
            if not one.fits(hard) and (used + one).fits(granted + free) and not (used + one).fits(granted):
                return f"{tenant} lacks {one} of burst in {view.region}, and that is free"
        return ""

    def _slice(self, view: "RegionView", tenant: str, free: Vector) -> str:
        slice_ = next((s for s in self.slices if (s.tenant, s.region) == (tenant, view.region)), objects_pb2.Slice())
        spec, told = self.tenants[tenant].spec, view.slices.get(tenant)
        if slice_.tenant and told and (told.weight, told.mode) != (spec.weight, spec.mode):
            return f"{view.region} has another weight or mode of {tenant}"
        granted = self._granted(view, tenant, HARD)
        protected = _protected(self.tenants[tenant], view.region)
        if slice_.tenant and told and vector(told.protected) != protected:
            return f"{view.region} protects {vector(told.protected)} of {tenant}, asked is {protected}"
        needed = (view.needed(tenant) - view.used(tenant, BURST)).at_least(Vector()).at_least(protected)
        if not granted.fits(needed.at_least(view.used(tenant))):
            return f"{tenant} keeps {granted} in {view.region}, where it needs {needed}"
        lacking = (needed - granted).at_least(Vector()).at_most(free)
        return f"{tenant} lacks {lacking} in {view.region}, and that is free" if lacking else ""
