"""Which leader of the global plane this region listens to: the newest it has heard of, and none that was deposed.

Keeps I6 and I9: a deposed leader does not know what was removed, granted or revoked since. The newest reign (store
life, term) is a record of the region's, so that the next leader here knows it too; a removed workload is forgotten only
under a reign that is noted, because from then on nothing else says that an older order for it is stale.
"""

from atoll.api.v1 import objects_pb2
from regional.core import events, shares, slices, transactions
from regional.core.commands import KeepTokens, LeaveGlobal
from regional.core.state import State, Turn
from regional.core.transactions import NoteGlobal

Said = (
    events.GlobalWelcomed
    | events.GlobalListed
    | events.ShareArrived
    | events.SliceArrived
    | events.TokensTold
    | events.GlobalLost
)


def said(state: State, event: Said, turn: Turn) -> None:
    match event:
        case events.GlobalWelcomed():
            _welcomed(state, event, turn)
        case events.GlobalLost():
            state.uplink = False
        case _ if state.deaf:
            pass
        case events.ShareArrived():
            shares.share_arrived(state, event.share, turn.now_ms)
        case events.SliceArrived():
            slices.slice_arrived(state, event.stamp, turn)
        case events.TokensTold():
            turn.do(KeepTokens(event.tokens))
        case events.GlobalListed():
            shares.listed(state, event.listed)


def _welcomed(state: State, event: events.GlobalWelcomed, turn: Turn) -> None:
    reign = event.welcome.store_life, event.welcome.term
    state.deaf = reign < state.heard
    if state.deaf:
        state.uplink = False
        turn.do(LeaveGlobal(f"its leader of term {reign[1]} was deposed: term {state.heard[1]} has spoken here"))
        return
    state.heard = reign
    shares.welcomed(state, event.welcome)


def next_note(state: State, lane: int, turn: Turn) -> NoteGlobal | None:
    if state.noting or state.heard == state.noted:
        return None
    state.noting = True
    return transactions.note_global(state.root, lane, *state.heard)


def note_committed(state: State, operation: NoteGlobal, revision: int, turn: Turn) -> None:
    state.noting = False
    state.noted = operation.reign.store_life, operation.reign.term
    state.forgettable.update(state.workloads)


def note_rejected(state: State, operation: NoteGlobal, turn: Turn) -> None:
    state.noting = False


def adopt(state: State, noted: objects_pb2.GlobalReign) -> None:
    """As the leader before has left it."""
    state.heard = state.noted = noted.store_life, noted.term
