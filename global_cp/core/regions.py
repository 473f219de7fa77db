"""The regions: who they are, which session speaks for each, and what they are told.

Decides registration (epoch 1, ACTIVE), which of two sessions of a region counts (the one of the higher term, else the
newer), and the order of what goes down: the welcome, the tokens, every slice and share of that region as they are, the
word that these were all, then each change once it is committed. Everything sent is absolute and carries (store life,
term, revision), so a region that keeps the highest per key is right after any loss, copy or reordering, and the word
that these were all rids it of what a deposed leader told. Keeps I6: a welcome carries the present epoch, and a region
that has heard a newer leader gets none: it knows better, and this one has to prove to itself that it still leads.
"""

from collections import deque
from dataclasses import dataclass, field

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.lane import Authority, Committed, Settled
from atoll.store import keys
from global_cp.core import transactions
from global_cp.core.commands import CloseSession, Command, SendDown
from global_cp.core.events import RegionConnected
from global_cp.core.records import Change, Records
from global_cp.core.region_updates import AS_REGISTERED, follow_hello, legal_labels
from global_cp.core.topics import Proposal

Down = regional_pb2.DownlinkMessage
FIRST_EPOCH = 1
_PROOF = object()


@dataclass(slots=True)
class Session:
    id: int
    term: int
    labels: list[objects_pb2.Label]  # as the region is configured
    welcomed: bool = False
    untold: deque[tuple[str, ...]] = field(default_factory=deque)  # shares, of those that there were at its welcome


class Regions:
    """The topic: sessions, and regions that are not registered yet."""

    def __init__(self, records: Records, authority: Authority, welcome_batch: int) -> None:
        """`welcome_batch`: so many shares are told to a region that is back before other events are handled."""
        self._records = records
        self._batch = welcome_batch
        self._telling: dict[str, None] = {}  # regions that have not been told all yet
        self._authority = authority
        self._sessions: dict[str, Session] = {}
        self._names: dict[int, str] = {}
        self._unsettled: dict[str, None] = {}  # whose record may not be what their session says
        self._doubted = False  # a region has shown a newer reign than this one
        self.summaries: dict[str, objects_pb2.RegionSummary] = {}

    def session_of(self, region: str) -> int | None:
        """The session that speaks for the region, once it is welcomed."""
        session = self._sessions.get(region)
        return session.id if session and session.welcomed else None

    def region_of(self, session: int) -> str | None:
        """The region a session speaks for; None when it has ended or was replaced."""
        return self._names.get(session)

    def connected(self, event: RegionConnected, out: list[Command]) -> None:
        old = self._sessions.get(event.region)
        if old is not None and old.term > event.hello.term:
            out.append(CloseSession(event.session, "a session of a higher term speaks for this region"))
            return
        if (event.hello.heard.store_life, event.hello.heard.term) > (self._authority.store_life, self._authority.term):
            self._doubted = True
            out.append(CloseSession(event.session, f"the region has heard the leader of term {event.hello.heard.term}"))
            return
        record = self._records.regions.get(event.region)
        if record is not None and event.hello.epoch > record.epoch:
            out.append(CloseSession(event.session, f"the region is at epoch {event.hello.epoch}: this store is older"))
            return
        if old is not None:
            self.gone(old.id)
            out.append(CloseSession(old.id, "a newer session speaks for this region"))
        self._sessions[event.region] = Session(event.session, event.hello.term, legal_labels(event.hello.labels))
        self._names[event.session] = event.region
        self._unsettled[event.region] = None
        if record is not None:
            self._welcome(record, out)

    def gone(self, session: int) -> None:
        if region := self._names.pop(session, None):
            del self._sessions[region]
            self._telling.pop(region, None)

    def lost(self, out: list[Command]) -> None:
        """Leadership is lost: the regions look for the new leader."""
        out.extend(CloseSession(session, "leadership was lost") for session in self._names)

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        for region in list(self._telling):
            self._tell(region, out)
        if self._doubted:
            return Proposal(transactions.prove(), _PROOF)
        for name in sorted(self._unsettled):
            session, record = self._sessions.get(name), self._records.regions.get(name)
            if session is not None:
                wanted = follow_hello(record, session.labels) if record else _registered(name, session, now_ms)
                if wanted is not None:
                    return Proposal(transactions.register(self._records, wanted), None)
            del self._unsettled[name]
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """A region whose record is still not right is found again. A leader that was deposed ends by the answer."""
        if item is _PROOF and isinstance(settled, Committed):
            self._doubted = False

    def changed(self, change: Change, out: list[Command]) -> None:
        match change.kind, change.after:
            case "region", objects_pb2.Region() as record:
                self._unsettled[change.path[0]] = None
                if (session := self._sessions.get(change.path[0])) and not session.welcomed:
                    self._welcome(record, out)
            case "slice", objects_pb2.Slice() as slice_:
                self._send(slice_.region, self._stamp(slice_), out)
            case "share", objects_pb2.Share() as share:
                self._send(share.region, self._stamped(share), out)
            case "token", _:
                for region in self._sessions:
                    self._send(region, self._tokens(), out)

    def deadline(self) -> int | None:
        return 0 if self._telling else None

    def is_connected(self, region: str) -> bool:
        return self.session_of(region) is not None

    def _welcome(self, record: objects_pb2.Region, out: list[Command]) -> None:
        region = record.metadata.name
        self._sessions[region].welcomed = True
        authority = self._authority
        welcome = regional_pb2.GlobalWelcome(store_life=authority.store_life, term=authority.term, epoch=record.epoch)
        self._send(region, Down(welcome=welcome), out)
        self._send(region, self._tokens(), out)
        for (_, owner), slice_ in self._records.slices.items():
            if owner == region:
                self._send(region, self._stamp(slice_), out)
        self._sessions[region].untold.extend(path for path, _ in self._records.shares.items() if path[0] == region)
        self._tell(region, out)

    def _tell(self, region: str, out: list[Command]) -> None:
        """The next part of what the region is told when it is back. What changes meanwhile is told at once, so all has
        been told at the end, as of then."""
        session = self._sessions[region]
        for _ in range(min(len(session.untold), self._batch)):
            share = self._records.shares.get(*session.untold.popleft())
            if share is not None:
                self._send(region, self._stamped(share), out)
        if session.untold:
            self._telling[region] = None
            return
        self._telling.pop(region, None)
        listed = regional_pb2.GlobalListed(
            store_life=self._authority.store_life, term=self._authority.term, revision=self._records.revision
        )
        self._send(region, Down(listed=listed), out)

    def _send(self, region: str, message: Down, out: list[Command]) -> None:
        session = self._sessions.get(region)
        if session and session.welcomed:
            out.append(SendDown(session.id, message))

    def _stamp(self, slice_: objects_pb2.Slice) -> Down:
        stamp = regional_pb2.SliceStamp(
            slice=slice_,
            store_life=self._authority.store_life,
            global_term=self._authority.term,
            global_revision=self._records.mod(keys.slice_(slice_.tenant, slice_.region)),
        )
        return Down(slice_stamp=stamp)

    def _stamped(self, share: objects_pb2.Share) -> Down:
        message = Down(share=share)
        message.share.store_life = self._authority.store_life
        message.share.global_term = self._authority.term
        metadata = share.metadata
        message.share.global_revision = self._records.mod(keys.share(share.region, metadata.tenant, metadata.name))
        return message

    def _tokens(self) -> Down:
        return Down(tokens=regional_pb2.TokenSet(tokens=list(self._records.tokens)))


def _registered(name: str, session: Session, now_ms: int) -> objects_pb2.Region:
    """A region's first record."""
    return objects_pb2.Region(
        metadata=objects_pb2.Metadata(name=name, generation=AS_REGISTERED, created_ms=now_ms, labels=session.labels),
        epoch=FIRST_EPOCH,
        state=objects_pb2.REGION_STATE_ACTIVE,
    )
