"""The use of this leader's term: writes that others ask for under it, and the proof that it still rules.

Keeps I5: an idle leader writes a TOUCH each second; agents are acknowledged only shortly after an applied transaction.
"""

from regional.core import node_changes, transactions
from regional.core.commands import CloseSession, Reply
from regional.core.events import Event, NodeChangeAsked, NodeHello, WriteAsked
from regional.core.state import State, Turn
from regional.core.transactions import Asked, ChangeNode, RemoveNode, Touch


def refuse(event: Event, turn: Turn) -> None:
    """On a standby: agents and callers look for the leader."""
    if isinstance(event, NodeHello) and not event.term:  # of an ended reign: its agent has been told NotLeader
        turn.do(CloseSession(event.session, "not the leader"))
    elif isinstance(event, WriteAsked | NodeChangeAsked):
        turn.do(Reply(event.reply_to, 0, "not the leader", unsent=True))


def ask(state: State, event: WriteAsked | NodeChangeAsked) -> None:
    if isinstance(event, WriteAsked):
        state.asked.append((event.reply_to, event.plan))
    else:
        node_changes.ask(state, event)


def next_asked(state: State, lane: int, turn: Turn) -> Asked | None:
    return transactions.asked(lane, *state.asked.pop(0)) if state.asked else None


def asked_committed(state: State, operation: Asked, revision: int, turn: Turn) -> None:
    turn.do(Reply(operation.reply_to, revision))


def asked_rejected(state: State, operation: Asked, turn: Turn) -> None:
    turn.do(Reply(operation.reply_to, 0, "refused: what it compared has changed"))


def next_touch(state: State, lane: int, turn: Turn) -> Touch | None:
    return transactions.touch(lane) if turn.now_ms >= touch_due_ms(state) else None


def touch_due_ms(state: State) -> int:
    return state.applied_sent_ms + state.settings.touch_after_ms


def deny_all(state: State, turn: Turn) -> None:
    """Leadership is lost: who asked learns that the write was not sent, or that nobody knows."""
    for operation in state.in_flight.values():
        reply_to = 0
        if isinstance(operation, Asked):
            reply_to = operation.reply_to
        elif isinstance(operation, ChangeNode | RemoveNode) and operation.asked:
            reply_to = operation.asked.reply_to
        if reply_to:
            turn.do(Reply(reply_to, 0, "leadership was lost; the outcome is not known", unknown=True))
    unsent = [reply_to for reply_to, _ in state.asked]
    unsent += [asked.reply_to for asked in (*state.node_changes, *state.removals_asked)]
    for reply_to in unsent:
        turn.do(Reply(reply_to, 0, "not the leader", unsent=True))
