"""What decisions on users' changes have in common: what they look at, and how their outcome is kept.

Decides nothing; mutations.py and policy_changes.py do.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.lane import Plan
from atoll.model.cron import Zones, utc_only
from global_cp.core.records import Records
from global_cp.core.recovery import Recovery

CREATED, UPDATED, UNCHANGED = "created", "updated", "unchanged"


@dataclass(frozen=True, slots=True)
class Decided:
    plan: Plan
    answer: Message  # without the revisions
    event: objects_pb2.Event | None = None  # for people, once it is committed


@dataclass(frozen=True, slots=True)
class World:
    """What decisions look at."""

    records: Records
    summaries: Mapping[str, objects_pb2.RegionSummary]
    recovery: Recovery
    webhooks: Sequence[str] = ()  # where jobs may have their ends told
    zones: Zones = utc_only
    busy_retry_ms: int = 0


def digest(request: Message) -> bytes:
    """What makes two requests of one id the same: the method and every byte of the body."""
    body = request.SerializeToString(deterministic=True)
    return hashlib.sha256(type(request).__name__.encode() + b"\0" + body).digest()


def record_of(request: Message, request_id: str, answer: Message, now_ms: int) -> objects_pb2.RequestRecord:
    """What is kept of a request: with the same id and body it gets this answer again."""
    return objects_pb2.RequestRecord(
        id=request_id,
        body_digest=digest(request),
        method=type(request).__name__,
        result=answer.SerializeToString(deterministic=True),
        at_ms=now_ms,
    )
