"""What a tenant's budget holds, and how it changes: identity (G) of budgets.py, without what regions were granted."""

from operator import attrgetter
from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import NONE, ByAccount, by_account


class Purse(NamedTuple):
    """A tenant's budget: L as asked, L effective, free F, of each account. R and O are zero until they exist."""

    target: ByAccount
    effective: ByAccount
    free: ByAccount

    def with_target(self, target: ByAccount) -> "Purse":
        """A raised quota is effective at once, as free budget; a lowered one only as far as budget is free."""
        raised = (target - self.effective).at_least(NONE)
        return Purse(target, self.effective + raised, self.free + raised).settled()

    def paid(self, amount: ByAccount) -> "Purse":
        return Purse(self.target, self.effective, self.free - amount)

    def returned(self, amount: ByAccount) -> "Purse":
        return Purse(self.target, self.effective, self.free + amount).settled()

    def settled(self) -> "Purse":
        """Free budget above the target is destroyed."""
        surplus = (self.effective - self.target).at_least(NONE).at_most(self.free)
        return Purse(self.target, self.effective - surplus, self.free - surplus)

    def to_proto(self, tenant: str) -> objects_pb2.Budget:
        budget = objects_pb2.Budget(tenant=tenant)
        for account, _ in self.target.at_least(self.effective).written():
            budget.accounts.add(
                account=account,
                target=self.target.of(account).to_proto(),
                effective=self.effective.of(account).to_proto(),
                free=self.free.of(account).to_proto(),
            )
        return budget


def purse(budget: objects_pb2.Budget | None) -> Purse:
    parts = budget.accounts if budget else ()
    target, effective, free = (by_account(parts, attrgetter(name)) for name in ("target", "effective", "free"))
    return Purse(target, effective, free)
