"""The use of this leader's term: writes that others ask for under it, and the proof that it still rules.

Keeps I5: an idle leader writes a TOUCH each second; agents are acknowledged only shortly after an applied transaction.
"""

from regional.core import transactions
from regional.core.commands import Reply
from regional.core.state import State, Turn
from regional.core.transactions import Asked, Touch


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
        if isinstance(operation, Asked):
            turn.do(Reply(operation.reply_to, 0, "leadership was lost; the outcome is not known", unknown=True))
    for reply_to, _ in state.asked:
        turn.do(Reply(reply_to, 0, "not the leader", unsent=True))
