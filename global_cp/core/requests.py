"""Users' changes on their way to a transaction, and the memory that makes each happen once.

Decides the order (first come, first served), the bound (Busy), of which each tenant has its share, and what a request
id means: the same id and body get the same answer, also while the first is on its way and after a takeover; the same id
with another body is refused. The record of a request is written by the mutation's own transaction and kept for a day.
Workloads that come or go one after the other share a transaction, as far as none is decided by what another asks for.
"""

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from google.protobuf.message import Message

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import AtollError, Busy, Conflict, Invalid, Mistake, OutcomeUnknown, Unavailable
from atoll.lane import Committed, Plan, Settled
from atoll.model.cron import Zones
from atoll.model.names import mistake_in_request_id
from atoll.store import keys
from global_cp.config import CoreSettings
from global_cp.core import transactions
from global_cp.core.bundles import Bundle
from global_cp.core.commands import Announce, Command, Reply
from global_cp.core.decided import Decided, World, digest
from global_cp.core.events import MutationAsked
from global_cp.core.mutations import REQUEST_REUSED, decide, stored_answer, tenant_of, with_revision
from global_cp.core.records import Change, Records
from global_cp.core.recovery import Recovery
from global_cp.core.topics import Proposal, refusal_of_form

_MAY_BE_TRIED = global_pb2.ApplyWorkloadRequest | global_pb2.ApplyTenantRequest | global_pb2.ApplyPolicyRequest


@dataclass(slots=True)
class Pending:
    """One mutation on its way. `askers`: who waits for it; the first one's body counts."""

    asked: MutationAsked
    path: tuple[str, str]  # (tenant, request id)
    digest: bytes
    askers: list[int]
    decided: Decided | None = field(default=None)


class _Next(NamedTuple):
    """Taken from the queue, with what it wants."""

    pending: Pending
    plan: Plan


class Requests:
    """The topic: the queue of mutations."""

    def __init__(
        self,
        records: Records,
        settings: CoreSettings,
        summaries: Mapping[str, objects_pb2.RegionSummary],
        reign: str,
        zones: Zones,
        recovery: Recovery,
    ) -> None:
        """`reign`: tells this leader from every other, in the uids it gives."""
        self._records = records
        self._world = World(records, summaries, recovery, settings.webhooks, zones, settings.busy_retry_ms)
        self._settings = settings
        self._reign = reign
        self._queue: deque[Pending] = deque()
        self._pending: dict[tuple[str, str], Pending] = {}
        self._of_tenant: Counter[str] = Counter()  # of these
        self._uids = 0
        self._alone = (
            0  # so many of the queue go alone: one of them is refused by the store, and has to be told from the others
        )

    def ask(self, asked: MutationAsked, now_ms: int, out: list[Command]) -> None:
        request = asked.request
        if isinstance(request, _MAY_BE_TRIED) and request.dry_run:
            result = decide(self._world, asked, "", now_ms)
            answer = with_revision(result.answer, 0) if isinstance(result, Decided) else result
            out.append(Reply(asked.reply_to, answer))
            return
        path = (tenant_of(request), request.request_id)  # type: ignore[attr-defined]  # every mutation has one
        body = digest(request)
        if mistake := mistake_in_request_id(path[1]):
            error = Invalid("every change needs a request id", mistakes=(Mistake("requestId", mistake),))
            out.append(Reply(asked.reply_to, error))
        elif pending := self._pending.get(path):
            if pending.digest == body:
                pending.askers.append(asked.reply_to)
            else:
                out.append(Reply(asked.reply_to, _reused(path[1])))
        elif record := self._records.requests.get(*path):
            out.append(self._replay(asked.reply_to, record, path, body))
        elif self._is_full(path[0]):
            error_ = Busy("too many changes are waiting", retry_after_ms=self._settings.busy_retry_ms)
            out.append(Reply(asked.reply_to, error_))
        else:
            self._pending[path] = Pending(asked, path, body, [asked.reply_to])
            self._queue.append(self._pending[path])
            self._of_tenant[path[0]] += 1

    def _is_full(self, tenant: str) -> bool:
        """At the bound a tenant is heard while it has less than its share of it, so that nobody's flood keeps others
        out; there are never more than twice as many."""
        if len(self._pending) < self._settings.intake_limit:
            return False
        return self._of_tenant[tenant] >= self._settings.intake_limit // len(self._of_tenant)

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        first = self._decided(now_ms, out)
        if first is None:
            return None
        bundle, sent = Bundle(first.plan), [first.pending]
        if self._alone:
            self._alone -= 1
            return Proposal(first.plan, sent)
        while self._queue and not bundle.is_full and _alike(first.pending, self._queue[0]):
            following = self._decided(now_ms, out)
            if following is None:
                break
            if not bundle.takes(following.plan):
                self._queue.appendleft(following.pending)
                break
            sent.append(following.pending)
        return Proposal(bundle.plan(), sent)

    def _decided(self, now_ms: int, out: list[Command]) -> "_Next | None":
        """The next of the queue that wants a transaction. What wants none is answered."""
        while self._queue:
            pending = self._queue.popleft()
            self._uids += 1
            result = decide(self._world, pending.asked, f"{self._reign}.{self._uids}", now_ms)
            if isinstance(result, Decided):
                pending.decided = result
                return _Next(pending, result.plan)
            self._answer(pending, result, out)
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        assert isinstance(item, list)
        reason = refusal_of_form(settled)
        if reason and len(item) > 1:
            self._alone = len(item)
        if isinstance(settled, Committed):
            for pending in item:
                assert pending.decided is not None
                self._answer(pending, with_revision(pending.decided.answer, settled.revision), out)
                if pending.decided.event is not None:
                    out.append(Announce(pending.decided.event))
        elif reason and len(item) == 1:
            self._answer(item[0], Unavailable(f"the store refused the change: {reason}", code="E5009"), out)
        else:
            self._queue.extendleft(reversed(item))

    def lost(self, out: list[Command]) -> None:
        """Leadership is lost: what was queued did not happen; what was sent may have."""
        waiting = {pending.path for pending in self._queue}
        for pending in list(self._pending.values()):
            error: AtollError = Unavailable("leadership was lost before the change was sent")
            if pending.path not in waiting:
                error = OutcomeUnknown(
                    "leadership was lost while the change was under way",
                    hint="ask again with the same request id",
                    request_id=pending.path[1],
                )
            self._answer(pending, error, out)

    def changed(self, change: Change, out: list[Command]) -> None:
        """Nothing waits for a record."""

    def deadline(self) -> int | None:
        return None

    def _answer(self, pending: Pending, answer: AtollError | Message, out: list[Command]) -> None:
        del self._pending[pending.path]
        tenant = pending.path[0]
        self._of_tenant[tenant] -= 1
        if not self._of_tenant[tenant]:
            del self._of_tenant[tenant]
        for index, reply_to in enumerate(pending.askers):
            out.append(Reply(reply_to, answer, replayed=index > 0))

    def _replay(self, reply_to: int, record: objects_pb2.RequestRecord, path: tuple[str, str], body: bytes) -> Reply:
        if record.body_digest != body:
            return Reply(reply_to, _reused(path[1]))
        revision = self._records.mod(keys.request(*path))
        return Reply(reply_to, with_revision(stored_answer(record), revision), replayed=True)


class Sweep:
    """The topic: request records past their time, the oldest first."""

    def __init__(self, records: Records, settings: CoreSettings) -> None:
        self._records = records
        self._settings = settings
        self._oldest: list[tuple[int, tuple[str, ...]]] = []  # a heap
        self._next_ms = 0

    def read(self, change: Change) -> None:
        self.changed(change, [])

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        if now_ms < self._next_ms:
            return None
        batch: list[tuple[int, tuple[str, ...]]] = []
        while self._oldest and self._oldest[0][0] < now_ms - self._settings.request_keep_ms:
            if len(batch) == self._settings.sweep_batch:
                break
            batch.append(heapq.heappop(self._oldest))
        else:
            self._next_ms = now_ms + self._settings.sweep_interval_ms
        if not batch:
            return None
        return Proposal(transactions.sweep_requests(self._records, [path for _, path in batch]), batch)

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        if isinstance(item, list) and not isinstance(settled, Committed):
            for one in item:
                heapq.heappush(self._oldest, one)

    def changed(self, change: Change, out: list[Command]) -> None:
        if isinstance(change.after, objects_pb2.RequestRecord):
            heapq.heappush(self._oldest, (change.after.at_ms, change.path))

    def deadline(self) -> int | None:
        return self._next_ms


def _alike(first: Pending, following: Pending) -> bool:
    """Whether the two may be decided from the same records, and be right together."""
    requests = first.asked.request, following.asked.request
    return type(requests[0]) is type(requests[1]) and all(map(_is_apart, requests))


def _is_apart(request: Message) -> bool:
    """What is decided by no other workload: its own document and its tenant, which nothing here changes. A workload
    that is refused above the quota, or where no other region could take it, is: by what all others ask for."""
    match request:
        case global_pb2.ApplyWorkloadRequest():
            spec = request.workload.spec
            return spec.on_quota != objects_pb2.ON_QUOTA_REJECT and spec.recovery != objects_pb2.RECOVERY_REQUIRED
        case global_pb2.DeleteWorkloadRequest():
            return True
    return False


def _reused(request_id: str) -> AtollError:
    return Conflict(
        f"request id {request_id!r} was used for another change",
        hint="use a new request id for a new change",
        request_id=request_id,
        code=REQUEST_REUSED,
    )
