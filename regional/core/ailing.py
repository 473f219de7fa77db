"""Why a replica that was placed does not do what is wanted of it: from what its agent said last, or how it ended.

Decides the code and the sentence. The code is the stable word that the agent's message begins with (ImageMissing,
PortTaken, EngineDown, StorageFailed …), or else the reason of the exit. Pure; changes nothing.
"""

import re
from collections.abc import Iterable
from itertools import islice

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.slots import SECOND_COPY
from regional.core.records import BOUND, CLOSED, COMPLETED, NODE_LOST, STOPPED, SlotEntry

ACCEPTED, BACKOFF = agent_pb2.ATTEMPT_PHASE_ACCEPTED, agent_pb2.ATTEMPT_PHASE_BACKOFF
RUNNING = agent_pb2.ATTEMPT_PHASE_RUNNING
NOT_READY = "NotReady"
_WELL = ("", COMPLETED, STOPPED, NODE_LOST)
_WORD = re.compile(r"([A-Z][A-Za-z]{2,31}): ")
_LONGEST = 300
_LOOKED_AT = 100  # of one task's replicas: a report stays cheap when thousands fail alike


def ails(entry: SlotEntry) -> bool:
    """Whether `ailment` has something to say. Asked at every change of an entry."""
    status = entry.status
    if not entry.wanted or entry.outdated or entry.index >= SECOND_COPY:
        return False
    if not entry.bound:
        return entry.exit_reason not in _WELL
    if status is None or entry.closing:
        return False
    if status.phase == BACKOFF:
        return True
    if status.phase == CLOSED:
        return status.exit.reason not in _WELL
    return bool(status.message) and not status.serving and status.phase in (ACCEPTED, RUNNING)


def ailment(entry: SlotEntry) -> objects_pb2.PendingReason:
    """Of an entry that ails."""
    status = entry.status
    if entry.record.state != BOUND or status is None:
        tries = f"; tried {entry.record.tries} times" if entry.record.tries > 1 else ""
        return _of_exit(entry.record.exit, tries)
    if status.phase in (BACKOFF, CLOSED):
        return _of_exit(status.exit, f"; restarted {status.restarts} times" if status.restarts > 1 else "")
    return _reason(status.message, NOT_READY)


def ailments(entries: Iterable[SlotEntry]) -> list[objects_pb2.PendingReason]:
    """Of many, one a code: how many replicas, and the words about the first of them; sorted by code."""
    found: dict[str, objects_pb2.PendingReason] = {}
    counts: dict[str, int] = {}
    for entry in islice(entries, _LOOKED_AT):
        reason = ailment(entry)
        found.setdefault(reason.code, reason)
        counts[reason.code] = counts.get(reason.code, 0) + 1
    for code, reason in found.items():
        if counts[code] > 1:
            reason.message = f"{counts[code]} replicas, the first: {reason.message}"
    return [found[code] for code in sorted(found)]


def _of_exit(exit_: objects_pb2.Exit, more: str) -> objects_pb2.PendingReason:
    text = exit_.message or f"it ended with code {exit_.code}"
    reason = _reason(text, exit_.reason or "Failed")
    reason.message += more
    return reason


def _reason(text: str, otherwise: str) -> objects_pb2.PendingReason:
    """`Word: what happened` is told apart; `otherwise` is the code of a text that has no such beginning."""
    word = _WORD.match(text)
    code, rest = (word[1], text[word.end() :]) if word else (otherwise, text)
    return objects_pb2.PendingReason(code=code, message=rest if len(rest) <= _LONGEST else rest[: _LONGEST - 1] + "…")
