"""Several plans as one transaction: what a lane gives a second is bounded by its transactions, not by their size.

Decides what fits together: plans of one operation, each of which was planned from the committed records as if it were
alone, none of which writes what another compares or writes, and no more than a store takes at once. So all of them are
as right together as they would be one after the other. They apply or are refused as one; who bundles them plans them
anew then.
"""

from atoll.lane import MOST_COMPARES, MOST_WRITES, Plan
from atoll.store.store import Put

MOST_PLANS = 20
MOST_BYTES = 256 * 1024  # of values, a sixth of what etcd takes by default


class Bundle:
    """Begins with one plan, whatever its size."""

    def __init__(self, first: Plan) -> None:
        self._plans = [first]
        self._written = {write.key for write in first.writes}
        self._compared = {compare.key for compare in first.compares}
        self._bytes = _size(first)

    @property
    def is_full(self) -> bool:
        return len(self._plans) == MOST_PLANS or self._bytes >= MOST_BYTES

    def takes(self, plan: Plan) -> bool:
        """Adds the plan, or says that it has to wait."""
        written = {write.key for write in plan.writes}
        compared = {compare.key for compare in plan.compares}
        if not written.isdisjoint(self._written | self._compared) or not compared.isdisjoint(self._written):
            return False
        written, compared, size = self._written | written, self._compared | compared, self._bytes + _size(plan)
        too_large = len(written) > MOST_WRITES or len(compared) > MOST_COMPARES or size > MOST_BYTES
        if self.is_full or too_large or plan.operation != self._plans[0].operation:
            return False
        self._plans.append(plan)
        self._written, self._compared, self._bytes = written, compared, size
        return True

    def plan(self) -> Plan:
        """All of them as one; what several compare is compared once."""
        compares = dict.fromkeys(compare for plan in self._plans for compare in plan.compares)
        writes = tuple(write for plan in self._plans for write in plan.writes)
        return Plan(self._plans[0].operation, tuple(compares), writes)


def _size(plan: Plan) -> int:
    return sum(len(write.value) for write in plan.writes if isinstance(write, Put))
