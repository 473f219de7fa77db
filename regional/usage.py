"""What tenants may charge and have charged in this region, by account, as metrics: read from the leader's memory when
they are asked for. A standby has none. Only what is not zero is told, so that tenants without work cost nothing."""

import asyncio
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.registry import Collector

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import ACCOUNTS
from atoll.model.resources import DIMENSIONS
from regional.core.ledger import TenantAccount
from regional.core.state import State

NAME = "atoll_region_tenant_resources"
_LABELS = ("tenant", "account", "dimension", "amount")


class Usage(Collector):
    def __init__(self, state: Callable[[], State | None]) -> None:
        self._state = state

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing is known before it is asked for."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """By another thread than the core's: the accounts are copied at once, and each amount is a value."""
        state = self._state()
        family = GaugeMetricFamily(NAME, "What tenants may charge here (limit) and have charged.", labels=_LABELS)
        for account in list(state.accounts.values()) if state else ():
            for labels, amount in _amounts(account):
                family.add_metric(labels, amount)
        yield family


async def told_while_running(usage: Usage) -> None:
    """Until cancelled: a process may have had another region before."""
    REGISTRY.register(usage)
    try:
        await asyncio.Event().wait()
    finally:
        REGISTRY.unregister(usage)


def _amounts(account: TenantAccount) -> Iterator[tuple[list[str], int]]:
    told = {"limit": account.limit, "bound": account.bound, "reserved": account.reserved, "zombie": account.zombie}
    for kind, amounts in told.items():
        for which in ACCOUNTS:
            name = objects_pb2.Account.Name(which).removeprefix("ACCOUNT_").lower()
            for dimension, amount in zip(DIMENSIONS, amounts.of(which), strict=True):
                if amount:
                    yield [account.tenant, name, dimension, kind], amount
