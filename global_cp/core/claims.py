"""What live work asks for in each region, by tenant and priority, as sums kept by differences.

A replica claims its request from when its region is told of it until its share is closed or its job is over, whether it
runs yet or waits. Decides nothing.
"""

from collections.abc import Mapping

from atoll.api.v1 import objects_pb2
from atoll.model.resources import NOTHING, Vector

Priority = int
_OVER = (objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED)


class Claims:
    def __init__(self) -> None:
        self._sums: dict[str, dict[tuple[str, Priority], Vector]] = {}  # by region, then tenant and priority

    def add(self, share: objects_pb2.Share, asked: Vector) -> None:
        """`asked`: what all of it asks for; negative when it goes."""
        if asked:
            sums = self._sums.setdefault(share.region, {})
            key = (share.metadata.tenant, share.spec.priority)
            if left := sums.pop(key, NOTHING) + asked:
                sums[key] = left

    def at_least(self, region: str, priority: Priority) -> Mapping[str, Vector]:
        """By tenant: what it asks for in the region at this priority or a higher one."""
        found: dict[str, Vector] = {}
        for (tenant, level), asked in self._sums.get(region, {}).items():
            if level >= priority:
                found[tenant] = found.get(tenant, NOTHING) + asked
        return found


def is_over(status: objects_pb2.WorkloadStatus | None) -> bool:
    """Whether it is a job whose replicas ask for nothing more."""
    return status is not None and status.job.phase in _OVER
