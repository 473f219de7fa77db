"""The committed state: every record under /g as the store has it, with its revision.

Decides nothing. It is filled once by the list after an election and from then on only by the writes of this leader's
own committed plans, applied here exactly as the store applied them; nobody else writes under /g. Besides the records it
keeps sums that would be slow to add up each time: what each tenant asks for, and what its shares need in each region.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import NONE, ByAccount, by_account
from atoll.model.demand import demand
from atoll.model.resources import NOTHING, Vector, vector
from atoll.store import keys
from atoll.store.store import Delete, KeyValue, Put
from global_cp.core import jobs
from global_cp.core.claims import Claims, is_over

M = TypeVar("M", bound=Message)
V = TypeVar("V")


class Change(NamedTuple):
    """One key's change. `before` and `after` are None when it was or is absent."""

    kind: str  # the key's second part: workload, share, slice, ...
    path: tuple[str, ...]  # the rest of the key
    before: Message | None
    after: Message | None
    revision: int


class Table(Generic[M]):
    """The documents of one kind, by the parts of their key after the kind."""

    def __init__(self, message: type[M]) -> None:
        self._message = message
        self._documents: dict[tuple[str, ...], M] = {}
        self._ordered: list[tuple[tuple[str, ...], M]] | None = None  # until one is stored
        self._meant: dict[tuple[str, ...], dict[Callable[[M | None], Any], Any]] = {}

    def get(self, *path: str) -> M | None:
        return self._documents.get(path)

    def meaning(self, read: Callable[[M | None], V], *path: str) -> V:
        """What `read`, which is pure, makes of a document: remembered until another is stored there."""
        meant = self._meant.get(path)
        if meant is None:
            meant = self._meant[path] = {}
        if read in meant:
            value: V = meant[read]
        else:
            value = meant[read] = read(self._documents.get(path))
        return value

    def items(self) -> Sequence[tuple[tuple[str, ...], M]]:
        """In key order."""
        if self._ordered is None:
            self._ordered = sorted(self._documents.items(), key=itemgetter(0))
        return self._ordered

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[M]:
        """In key order."""
        return iter([document for _, document in self.items()])

    def parse(self, value: bytes) -> M:
        return self._message.FromString(value)

    def store(self, path: tuple[str, ...], document: Message | None) -> M | None:
        """Sets or (None) removes; returns what was there."""
        before = self._documents.pop(path, None)
        self._meant.pop(path, None)
        self._ordered = None
        if document is not None:
            assert isinstance(document, self._message)
            self._documents[path] = document
        return before


class Records:
    """Everything under /g but the keys of the authority."""

    def __init__(self) -> None:
        self.tenants = Table(objects_pb2.Tenant)
        self.workloads = Table(objects_pb2.Workload)
        self.statuses = Table(objects_pb2.WorkloadStatus)
        self.budgets = Table(objects_pb2.Budget)
        self.slices = Table(objects_pb2.Slice)  # (tenant, region)
        self.acks = Table(objects_pb2.SliceAck)  # (region, tenant)
        self.regions = Table(objects_pb2.Region)
        self.shares = Table(objects_pb2.Share)  # (region, tenant, workload)
        self.requests = Table(objects_pb2.RequestRecord)
        self.tokens = Table(objects_pb2.UserToken)
        self.notices = Table(objects_pb2.Notice)  # (tenant, id)
        self.claims = Claims()
        self.policies = Table(objects_pb2.SchedulerPolicy)  # by number
        self.in_force = Table(objects_pb2.PolicyInForce)
        self.revision = 0
        self._mods: dict[bytes, int] = {}
        self._asked: dict[str, Vector] = {}
        self._firm: dict[str, Vector] = {}
        self._shared: dict[tuple[str, str], Vector] = {}
        self._regions_of: dict[tuple[str, str], tuple[str, ...]] = {}
        self._tables: dict[str, Table[Any]] = {
            "tenant": self.tenants,
            "workload": self.workloads,
            "status": self.statuses,
            "budget": self.budgets,
            "slice": self.slices,
            "ack": self.acks,
            "region": self.regions,
            "share": self.shares,
            "request": self.requests,
            "token": self.tokens,
            "policy": self.policies,
            "policy_in_force": self.in_force,
            "notice": self.notices,
        }

    def adopt(self, key: bytes, item: KeyValue | None) -> Change | None:
        """What the store was seen to hold under `key`."""
        return self._set(key, item.value if item else None, item.mod_revision if item else 0)

    def apply(self, writes: Iterable[Put | Delete], revision: int) -> list[Change]:
        """The writes of a plan that was committed at `revision`."""
        self.revision = max(self.revision, revision)  # lanes answer in any order
        changes = [self._set(write.key, write.value if isinstance(write, Put) else None, revision) for write in writes]
        return [change for change in changes if change]

    def mod(self, key: bytes) -> int:
        """The revision that last wrote `key`; 0 when it is absent."""
        return self._mods.get(key, 0)

    def asked(self, tenant: str) -> Vector:
        """What all workloads of the tenant that are not being deleted ask for, but for replicas that have ended."""
        return self._asked.get(tenant, NOTHING)

    def firm(self, tenant: str) -> Vector:
        """The part of it that burst may not pay for."""
        return self._firm.get(tenant, NOTHING)

    def needed(self, tenant: str, region: str) -> Vector:
        """What the tenant's live shares in the region need."""
        return self._shared.get((tenant, region), NOTHING)

    def zombie(self, tenant: str, region: str) -> ByAccount:
        """What the region last said that work without a binding may still use, if the tenant pays for it (strict)."""
        return self.acks.meaning(_zombie, region, tenant) if self.tenants.meaning(_is_strict, tenant) else NONE

    def beside(self, tenant: str, region: str) -> ByAccount:
        """What the region last said that it charges, or has to, beside what its shares need."""
        return self.acks.meaning(_surge, region, tenant) + self.zombie(tenant, region)

    def wanted(self, tenant: str, region: str) -> Vector:
        """What the region last said that it asks of the burst account, beside what it uses."""
        return self.acks.meaning(_wanted, region, tenant).burst

    def protected(self, tenant: str, region: str) -> Vector:
        """What the tenant has protected there."""
        return self.tenants.meaning(_protected, tenant).get(region, NOTHING)

    def region_names(self) -> list[str]:
        """Of the registered regions, in order."""
        return [path[0] for path, _ in self.regions.items()]

    def workloads_of(self, tenant: str) -> list[tuple[str, str]]:
        """The paths of a tenant's workloads, in order of name."""
        return [(path[0], path[1]) for path, _ in self.workloads.items() if path[0] == tenant]

    def slices_of(self, tenant: str) -> dict[str, objects_pb2.Slice]:
        """By region, in order of region. Only registered regions have slices."""
        slices = {region: self.slices.get(tenant, region) for region in self.region_names()}
        return {region: slice_ for region, slice_ in slices.items() if slice_ is not None}

    def shares_of(self, tenant: str, workload: str) -> dict[str, objects_pb2.Share]:
        """By region, in order of region."""
        regions = self._regions_of.get((tenant, workload), ())
        shares = {region: self.shares.get(region, tenant, workload) for region in regions}
        return {region: share for region, share in shares.items() if share is not None}

    def _set(self, key: bytes, value: bytes | None, revision: int) -> Change | None:
        kind, _, rest = key.removeprefix(keys.GLOBAL).decode().partition("/")
        table = self._tables.get(kind)
        if table is None:
            return None  # store_life, leader, lane: the authority's
        path = tuple(rest.split("/"))
        after = table.parse(value) if value is not None else None
        before = table.store(path, after)
        if after is None:
            self._mods.pop(key, None)
        else:
            self._mods[key] = revision
        self._sum(kind, path, before, after)
        return Change(kind, path, before, after, revision)

    def _sum(self, kind: str, path: tuple[str, ...], before: Message | None, after: Message | None) -> None:
        for document, sign in ((before, -1), (after, 1)):
            if isinstance(document, objects_pb2.Workload):
                self._ask(path[0], document, self.statuses.get(*path), sign)
            if isinstance(document, objects_pb2.Share) and not document.removed:
                place, asked = (path[1], path[0]), share_demand(document) * sign
                self._shared[place] = self._shared.get(place, NOTHING) + asked
                if not is_over(self.statuses.get(path[1], path[2])):
                    self.claims.add(document, asked)
            if isinstance(document, objects_pb2.WorkloadStatus) and is_over(document):
                for share in self.shares_of(path[0], path[1]).values():
                    if not share.removed:
                        self.claims.add(share, share_demand(share) * -sign)
        if kind == "status" and (workload := self.workloads.get(*path)) and workload.spec.type == jobs.JOB:
            self._ask(path[0], workload, before, -1)
            self._ask(path[0], workload, after, 1)
        if kind == "share":
            region, owner = path[0], (path[1], path[2])
            others = [r for r in self._regions_of.get(owner, ()) if r != region]
            self._regions_of[owner] = tuple(sorted([*others, region] if after else others))
            if not self._regions_of[owner]:
                del self._regions_of[owner]

    def _ask(self, tenant: str, workload: objects_pb2.Workload, status: Message | None, sign: int) -> None:
        """Adds or takes away what the workload asks for when this is its status."""
        if workload.metadata.deleted_ms:
            return
        assert status is None or isinstance(status, objects_pb2.WorkloadStatus)
        ended = jobs.ended(workload, status)
        self._asked[tenant] = self._asked.get(tenant, NOTHING) + demand(workload.spec, ended) * sign
        self._firm[tenant] = self._firm.get(tenant, NOTHING) + demand(workload.spec, ended, firm=True) * sign


def _is_strict(tenant: objects_pb2.Tenant | None) -> bool:
    return tenant is not None and tenant.spec.mode == objects_pb2.QUOTA_MODE_STRICT


def _protected(tenant: objects_pb2.Tenant | None) -> Mapping[str, Vector]:
    """By region."""
    found: dict[str, Vector] = {}
    if tenant is not None and not tenant.metadata.deleted_ms:
        for part in tenant.spec.protected:
            found[part.region] = found.get(part.region, NOTHING) + vector(part.amount)
    return found


def _zombie(ack: objects_pb2.SliceAck | None) -> ByAccount:
    return by_account(ack.uses, attrgetter("zombie")) if ack else NONE


def _surge(ack: objects_pb2.SliceAck | None) -> ByAccount:
    return by_account(ack.uses, attrgetter("surge")) if ack else NONE


def _wanted(ack: objects_pb2.SliceAck | None) -> ByAccount:
    return by_account(ack.uses, attrgetter("wanted")) if ack else NONE


def share_demand(share: objects_pb2.Share) -> Vector:
    """What all replicas of the share that may run at once are charged."""
    result = NOTHING
    for task in share.spec.tasks:
        result += vector(task.resources.requests) * at_once(share, task)
    return result


def at_once(share: objects_pb2.Share, task: objects_pb2.Task, ended: int = 0) -> int:
    """How many replicas of the share's task may run there at once when so many of them have ended."""
    left = max(0, task.replicas - ended)
    left += min(left, task.speculation.most)
    return min((left, *(part.replicas for part in share.parallel if part.task == task.name)))
