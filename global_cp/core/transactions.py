"""Every transaction of the global plane, on one page. Beside the compares written here each one carries the lane and
the guards (term, store life) that `atoll.lane` adds: I5.

Values are absolute and compares are on the revisions of the committed records they were planned from, so a plan made
from an outdated view is refused as a whole.
"""

from collections.abc import Iterable, Sequence

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.lane import Plan
from atoll.model.strategies import STRATEGIES
from atoll.store import keys
from atoll.store.store import Compare, Delete, Put, mod_is
from global_cp.core.records import Records

CLUSTER = "-"  # stands for the tenant in the request keys of mutations that have none; no tenant can be called so


def admit(
    records: Records, workload: objects_pb2.Workload | None, tenant: str, request: objects_pb2.RequestRecord
) -> Plan:
    """ADMIT: the workload and the record of its request, together (I11: an answered request is a stored workload; a
    request applies once). The tenant is compared: nothing is admitted into one that goes; and what is in force, where a
    task names a strategy that only a policy has. `workload` is None when nothing changes: then the request's answer
    alone is kept."""
    compared = [keys.tenant(tenant)]
    writes = []
    if workload is not None:
        key = keys.workload(tenant, workload.metadata.name)
        compared.append(key)
        writes.append(_put(key, workload))
        if any(task.strategy not in ("", *STRATEGIES) for task in workload.spec.tasks):
            compared.append(keys.policy_in_force())
    return _with_request(records, "ADMIT", compared, writes, tenant, request)


def delete(
    records: Records,
    workload: objects_pb2.Workload,
    request: objects_pb2.RequestRecord,
    notices: Sequence[objects_pb2.Notice] = (),
) -> Plan:
    """DELETE: marks the workload (deleted_ms); it is forgotten when its last share is closed (I7). With it goes what is
    to be told of it."""
    tenant = workload.metadata.tenant
    key = keys.workload(tenant, workload.metadata.name)
    return _with_request(records, "DELETE", [key], [_put(key, workload), *_told(notices)], tenant, request)


def expire(records: Records, workload: objects_pb2.Workload, notices: Sequence[objects_pb2.Notice] = ()) -> Plan:
    """EXPIRE: the same of a job, by itself. Its status is compared: it has not been resumed."""
    tenant_name, name = workload.metadata.tenant, workload.metadata.name
    key = keys.workload(tenant_name, name)
    compared = _all_same(records, [key, keys.status(tenant_name, name)])
    return Plan("EXPIRE", compared, (_put(key, workload), *_told(notices)))


def run(
    records: Records,
    parent: objects_pb2.Workload,
    status: objects_pb2.WorkloadStatus,
    begun: objects_pb2.Workload | None,
) -> Plan:
    """RUN: a run of a schedule, and that its time is over, together: no time has two runs, and none is lost (I11).
    None: it is missed, or none is due and only the next time is noted. The tenant is compared, as by ADMIT."""
    tenant_name, name = parent.metadata.tenant, parent.metadata.name
    compared = [keys.workload(tenant_name, name), keys.status(tenant_name, name)]
    writes = [_put(keys.status(tenant_name, name), status)]
    if begun is not None:
        key = keys.workload(tenant_name, begun.metadata.name)
        compared += [key, keys.tenant(tenant_name)]
        writes.append(_put(key, begun))
    return Plan("RUN", _all_same(records, compared), tuple(writes))


def tenant(
    records: Records,
    document: objects_pb2.Tenant | None,
    budget: objects_pb2.Budget | None,
    name: str,
    request: objects_pb2.RequestRecord,
) -> Plan:
    """TENANT: the document and its budget move together, so that identity (G) holds at this revision too (I3). Both
    are None when nothing changes."""
    key, budget_key = keys.tenant(name), keys.budget(name)
    writes = [_put(key, document)] if document else []
    writes += [_put(budget_key, budget)] if budget else []
    return _with_request(records, "TENANT", [key, budget_key], writes, name, request)


def token(records: Records, record: objects_pb2.UserToken, request: objects_pb2.RequestRecord) -> Plan:
    """TOKEN: the hash of a user's secret. The secret itself is never stored."""
    compared = [keys.user_token(record.id)]
    if record.tenant:
        compared.append(keys.tenant(record.tenant))
    writes = [_put(keys.user_token(record.id), record)]
    return _with_request(records, "TOKEN", compared, writes, record.tenant or CLUSTER, request)


def revoke(records: Records, token_ids: Iterable[str]) -> Plan:
    """TOKEN: hashes of users who are no more."""
    gone = [keys.user_token(token_id) for token_id in token_ids]
    return Plan("TOKEN", _all_same(records, gone), tuple(Delete(key) for key in gone))


def revoke_one(records: Records, token_id: str, request: objects_pb2.RequestRecord) -> Plan:
    """TOKEN: as a user asks for it."""
    key = keys.user_token(token_id)
    return _with_request(records, "TOKEN", [key], [Delete(key)], CLUSTER, request)


def set_share(records: Records, workload: objects_pb2.Workload, shares: Sequence[objects_pb2.Share]) -> Plan:
    """SET-SHARE: which regions run how much of one workload, absolute. Compares the workload (I9: a share never brings
    back an older generation) and each region (I6: its epoch is the present one)."""
    tenant_name, name = workload.metadata.tenant, workload.metadata.name
    share_keys = [keys.share(share.region, tenant_name, name) for share in shares]
    return Plan(
        "SET-SHARE",
        (
            _same(records, keys.workload(tenant_name, name)),
            *_all_same(records, (keys.region(share.region) for share in shares)),
            *_all_same(records, share_keys),
        ),
        tuple(_put(key, share) for key, share in zip(share_keys, shares, strict=True)),
    )


def stamp_shares(records: Records, shares: Sequence[objects_pb2.Share]) -> Plan:
    """STAMP-SHARES: a batch of shares says the policy in force; all else of them is as stored, which is compared (I9,
    I6: nothing of an older generation or epoch comes back)."""
    share_keys = [keys.share(share.region, share.metadata.tenant, share.metadata.name) for share in shares]
    return Plan(
        "STAMP-SHARES",
        _all_same(records, [keys.policy_in_force(), *share_keys]),
        tuple(_put(key, share) for key, share in zip(share_keys, shares, strict=True)),
    )


def policy(
    records: Records,
    document: objects_pb2.SchedulerPolicy | None,
    outlived: Iterable[int],
    request: objects_pb2.RequestRecord,
) -> Plan:
    """POLICY: a new revision, under a number that nothing has; revisions that nobody needs go. None when nothing is
    new."""
    gone = [keys.policy(number) for number in outlived]
    compared, writes = [keys.policy_in_force(), *gone], [Delete(key) for key in gone]
    if document is None:
        return _with_request(records, "POLICY", compared, writes, CLUSTER, request)
    key = keys.policy(document.metadata.generation)
    return _with_request(records, "POLICY", [key, *compared], [_put(key, document), *writes], CLUSTER, request)


def policy_in_force(
    records: Records,
    force: objects_pb2.PolicyInForce | None,
    numbers: Iterable[int],
    request: objects_pb2.RequestRecord,
) -> Plan:
    """POLICY: which revisions are in force where. They are compared: none that is gone is put in force. None when
    nothing changes."""
    key = keys.policy_in_force()
    compared = [key, *(keys.policy(number) for number in numbers if number)]
    return _with_request(records, "POLICY", compared, [_put(key, force)] if force else [], CLUSTER, request)


def forget(records: Records, workload: objects_pb2.Workload, closed: Iterable[str], *, whole: bool) -> Plan:
    """FORGET: the shares of regions that closed every slot; with `whole` the workload and its status too (I7: nothing
    is forgotten that may still run)."""
    tenant_name, name = workload.metadata.tenant, workload.metadata.name
    gone = [keys.share(region, tenant_name, name) for region in closed]
    if whole:
        gone += [keys.workload(tenant_name, name), keys.status(tenant_name, name)]
    compared = dict.fromkeys([keys.workload(tenant_name, name), *gone])
    return Plan("FORGET", _all_same(records, compared), tuple(Delete(key) for key in gone))


def forget_tenant(records: Records, name: str, regions: Iterable[str]) -> Plan:
    """FORGET of a tenant: only when every slice has come back to zero, so nothing of its budget is out (I3)."""
    gone = [keys.tenant(name), keys.budget(name)]
    for region in regions:
        gone += [keys.slice_(name, region), keys.ack(region, name)]
    return Plan("FORGET", _all_same(records, gone), tuple(Delete(key) for key in gone))


def prove() -> Plan:
    """PROVE: nothing but the lane and the guards. A leader that was deposed is told so by its refusal."""
    return Plan("PROVE")


def register(records: Records, region: objects_pb2.Region) -> Plan:
    """REGION: a region's first record: epoch 1, ACTIVE (I6); later its labels, as it is configured."""
    key = keys.region(region.metadata.name)
    return Plan("REGION", (_same(records, key),), (_put(key, region),))


def update_region(
    records: Records, region: objects_pb2.Region | None, name: str, request: objects_pb2.RequestRecord
) -> Plan:
    """REGION: labels, cordon and drain, as an operator wants them. None when nothing changes."""
    key = keys.region(name)
    writes = [_put(key, region)] if region else []
    return _with_request(records, "REGION", [key], writes, CLUSTER, request)


def move_budget(
    records: Records,
    operation: str,
    budget: objects_pb2.Budget | None,
    slice_: objects_pb2.Slice,
    ack: objects_pb2.SliceAck | None = None,
) -> Plan:
    """GRANT (F lowered, A raised), TARGET (only the target of a shrink moves), RENEW (only the validity) and TAKE-BACK
    (A lowered to what a current acknowledgement allows, F raised): budget and slice in one transaction, so that
    effective + extras = free + pool + sum of slices at every revision (I3, identity G). The region is compared: its
    epoch is the slice's (I6)."""
    slice_key, budget_key = keys.slice_(slice_.tenant, slice_.region), keys.budget(slice_.tenant)
    compared = [budget_key, slice_key, keys.region(slice_.region)]
    writes = [_put(slice_key, slice_)]
    if budget is not None:
        writes.append(_put(budget_key, budget))
    if ack is not None:
        ack_key = keys.ack(slice_.region, slice_.tenant)
        compared.append(ack_key)
        writes.append(_put(ack_key, ack))
    return Plan(operation, _all_same(records, compared), tuple(writes))


def acknowledge(records: Records, acks: Sequence[objects_pb2.SliceAck]) -> Plan:
    """ACK: what regions enforce and use, for those to see who ask. Compares the slices: only current ones are kept."""
    ack_keys = [keys.ack(ack.region, ack.tenant) for ack in acks]
    compared = [*ack_keys, *(keys.slice_(ack.tenant, ack.region) for ack in acks)]
    puts = tuple(_put(key, ack) for key, ack in zip(ack_keys, acks, strict=True))
    return Plan("ACK", _all_same(records, compared), puts)


def status(
    records: Records,
    statuses: Sequence[tuple[objects_pb2.Workload, objects_pb2.WorkloadStatus]],
    notices: Sequence[objects_pb2.Notice] = (),
) -> Plan:
    """STATUS: a batch of status records, with what is to be told of jobs that end by them: none ends untold. Each
    compares its workload: no status outlives what it describes."""
    compares: list[Compare] = []
    writes: list[Put] = []
    for workload, document in statuses:
        metadata = workload.metadata
        compares.append(_same(records, keys.workload(metadata.tenant, metadata.name)))
        writes.append(_put(keys.status(metadata.tenant, metadata.name), document))
    return Plan("STATUS", tuple(compares), (*writes, *_told(notices)))


def notices(records: Records, ended: Sequence[tuple[tuple[str, ...], objects_pb2.Notice | None]]) -> Plan:
    """NOTICE: notices that were delivered, or kept long enough (None), and such as were given up."""
    paths = [keys.notice(*path) for path, _ in ended]
    writes = [_put(key, notice) if notice else Delete(key) for key, (_, notice) in zip(paths, ended, strict=True)]
    return Plan("NOTICE", _all_same(records, paths), tuple(writes))


def sweep_requests(records: Records, paths: Iterable[tuple[str, ...]]) -> Plan:
    """SWEEP-REQUESTS: request records past their time."""
    gone = [keys.request(*path) for path in paths]
    return Plan("SWEEP-REQUESTS", _all_same(records, gone), tuple(Delete(key) for key in gone))


def _with_request(
    records: Records,
    operation: str,
    compared: list[bytes],
    writes: Sequence[Put | Delete],
    tenant_name: str,
    request: objects_pb2.RequestRecord,
) -> Plan:
    key = keys.request(tenant_name, request.id)
    return Plan(operation, _all_same(records, [*compared, key]), (*writes, _put(key, request)))


def _told(notices: Sequence[objects_pb2.Notice]) -> list[Put]:
    return [_put(keys.notice(notice.tenant, notice.id), notice) for notice in notices]


def _put(key: bytes, document: Message) -> Put:
    return Put(key, document.SerializeToString(deterministic=True))


def _same(records: Records, key: bytes) -> Compare:
    return mod_is(key, records.mod(key))


def _all_same(records: Records, compared: Iterable[bytes]) -> tuple[Compare, ...]:
    return tuple(_same(records, key) for key in dict.fromkeys(compared))
