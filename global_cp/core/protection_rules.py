"""What a tenant may have protected: every mistake with its path.

Decides whether the protected parts could all be kept at once: within the tenant's quota over all regions, and within
each region's capacity over all tenants, as the region last summed it up. Capacity that shrinks later undoes nothing.
"""

from collections.abc import Iterator, Mapping

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model.resources import DIMENSIONS, LARGEST, Vector, format_quantity, total, vector
from global_cp.core.admission import spelled
from global_cp.core.records import Records

_AT = "spec.protected"


def mistakes_in_protection(
    tenant: objects_pb2.Tenant, records: Records, summaries: Mapping[str, objects_pb2.RegionSummary]
) -> Iterator[Mistake]:
    regions = [region.metadata.name for region in records.regions]
    others = [other.metadata.name for other in records.tenants if other.metadata.name != tenant.metadata.name]
    seen: set[str] = set()
    legal = True
    for index, part in enumerate(tenant.spec.protected):
        path = f"{_AT}[{index}]"
        if part.region not in regions:
            known = ", ".join(regions) or "none"
            yield Mistake(f"{path}.region", f"region {part.region[:63]!r} is not known; known are: {known}")
        if part.region in seen:
            yield Mistake(f"{path}.region", f"{part.region[:63]!r} is there twice")
        seen.add(part.region)
        for dimension in DIMENSIONS:
            amount = getattr(part.amount, dimension)
            if not 0 <= amount <= LARGEST:
                legal = False
                yield Mistake(f"{path}.amount.{spelled(dimension)}", f"{amount} is not allowed: 0 to {LARGEST}")
        summary = summaries.get(part.region)
        if legal and summary is not None and summary.nodes_total:
            asked = vector(part.amount) + total([records.protected(other, part.region) for other in others])
            told = f"asked by all tenants in {part.region}, it has"
            yield from _beyond(asked, vector(summary.capacity), told, vector(part.amount), f"{path}.amount")
    if legal:
        asked = total([vector(part.amount) for part in tenant.spec.protected])
        yield from _beyond(asked, vector(tenant.spec.quota), "asked in all, the quota is", asked, _AT)


def _beyond(asked: Vector, there: Vector, told: str, own: Vector, path: str) -> Iterator[Mistake]:
    """Of dimensions in which the tenant itself asks for something."""
    for name, wanted, most, mine in zip(DIMENSIONS, asked, there, own, strict=True):
        if mine and wanted > most:
            amounts = [format_quantity(amount, name) for amount in (wanted, most, wanted - most)]
            message = f"{spelled(name)}: {amounts[0]} {told} {amounts[1]}, missing {amounts[2]}"
            yield Mistake(path, message)
