"""All that a leader has: the records it listed, the topics over them, and its lanes.

Decides nothing. A new election means a new Reign, made from a new list; nothing is carried over. The list comes in
parts, and the topics follow it record by record: so the win itself costs nothing that grows with what is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from atoll.api.v1 import objects_pb2
from atoll.lane import Authority, Plan
from atoll.model.cron import Zones
from atoll.store.store import KeyValue
from global_cp.config import CoreSettings
from global_cp.core.budgets import Budgets
from global_cp.core.commands import Commit, Publish
from global_cp.core.job_life import JobLife
from global_cp.core.notices import Notices
from global_cp.core.policy_rollout import PolicyRollout
from global_cp.core.records import Change, Records
from global_cp.core.recovery import Recovery
from global_cp.core.regions import Regions
from global_cp.core.reports import Reports
from global_cp.core.requests import Requests, Sweep
from global_cp.core.rooms import Rooms
from global_cp.core.schedules import Schedules
from global_cp.core.shares import Shares
from global_cp.core.status import Statuses
from global_cp.core.topics import Proposal, Reader, Topic


@dataclass(frozen=True, slots=True)
class InFlight:
    """A plan on a lane, and whose it is."""

    topic: Topic
    item: object
    plan: Plan
    keys: set[bytes]
    lane: int
    sent_after: int  # the revision of the records then: it can only be committed later


class Reign:
    """`topics` are in the order in which they are asked next."""

    def __init__(self, authority: Authority, settings: CoreSettings, zones: Zones) -> None:
        self.authority = authority
        self.records = records = Records()
        self.regions = Regions(records, authority, settings.welcome_batch)
        self.reports = Reports(settings.overflow_settle_ms)
        self.rooms = Rooms(self.regions.summaries)
        self.shares = Shares(records, settings, self.reports, self.rooms)
        self.budgets = Budgets(records, settings, self.reports)
        recovery = Recovery(records, self.regions.summaries, settings)
        name = f"{authority.store_life}.{authority.term}"
        self.notices = Notices(records, settings, name)
        self.statuses = Statuses(records, settings, self.reports, recovery, self.notices)
        self.requests = Requests(records, settings, self.regions.summaries, name, zones, recovery)
        life, schedules = JobLife(records, settings), Schedules(records, settings, zones)
        rollout, sweep = PolicyRollout(records, settings), Sweep(records, settings)
        self._readers: dict[str, tuple[Reader, ...]] = {
            "notice": (self.notices,),
            "region": (recovery,),
            "request": (sweep,),
            "share": (self.shares, recovery, rollout),
            "tenant": (self.budgets, recovery),
            "workload": (self.shares, recovery, self.statuses, life, schedules),
        }
        self.topics: list[Topic] = [
            self.requests,
            self.regions,
            self.shares,
            self.budgets,
            recovery,
            self.statuses,
            self.notices,
            life,
            schedules,
            rollout,
            sweep,
        ]
        self.free_lanes = list(range(settings.lanes))
        self.busy_keys: set[bytes] = set()  # of the plans in flight
        self.held_up: list[Topic] = []  # by a plan in flight: what they wanted last has a key of it
        self.pause_until_ms = 0
        self.unpublished: list[Publish] = []
        self._in_flight: dict[int, InFlight] = {}

    def read(self, items: Sequence[KeyValue], revision: int) -> None:
        """A part of the list after the election."""
        for item in items:
            if change := self.records.adopt(item.key, item):
                for reader in self._readers.get(change.kind, ()):
                    reader.read(change)
        self.records.revision = revision

    def learn(self, change: Change) -> None:
        """A record changed: what is known of the regions beside the records follows."""
        if change.kind == "share":
            self.rooms.told(change)
            share = change.after if isinstance(change.after, objects_pb2.Share) else None
            self.reports.told((change.path[1], change.path[2]), change.path[0], share)
            if change.after is None:
                self.reports.forget((change.path[1], change.path[2]), change.path[0])

    def send(self, plan_id: int, topic: Topic, proposal: Proposal) -> Commit | None:
        """Puts a proposal on a free lane; its topic is asked last the next time. None while one in flight has a key
        of it."""
        keys = keys_of(proposal.plan)
        if not keys.isdisjoint(self.busy_keys):
            return None
        self.topics.remove(topic)
        self.topics.append(topic)
        lane = self.free_lanes.pop(0)
        self.busy_keys |= keys
        self._in_flight[plan_id] = InFlight(topic, proposal.item, proposal.plan, keys, lane, self.records.revision)
        return Commit(plan_id, lane, proposal.plan)

    @property
    def complete_revision(self) -> int:
        """Every commit up to here is in the records; with several lanes a lower one may be answered after a higher."""
        return min((plan.sent_after for plan in self._in_flight.values()), default=self.records.revision)

    def publishable(self) -> list[Publish]:
        """The events that no earlier one can follow any more, in order of revision."""
        self.unpublished.sort(key=lambda news: news.event.revision)
        complete = self.complete_revision
        ready = [news for news in self.unpublished if news.event.revision <= complete]
        del self.unpublished[: len(ready)]
        return ready

    def landed(self, plan_id: int) -> InFlight | None:
        """The plan is settled and its lane is free. None for a plan of another reign."""
        done = self._in_flight.pop(plan_id, None)
        if done is not None:
            self.free_lanes.append(done.lane)
            self.busy_keys -= done.keys
        return done


def keys_of(plan: Plan) -> set[bytes]:
    """Every key the plan compares or writes."""
    return {compare.key for compare in plan.compares} | {write.key for write in plan.writes}
