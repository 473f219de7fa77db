"""How each field of the protos is written in a manifest: its name, its kind, and the other names it answers to.

Everything is derived from the descriptors: `memory_mib` is `memory`, a quantity; `start_period_ms` is `startPeriod`,
a duration; repeated Label is a map. The tables below hold only what a descriptor cannot say.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message


class Kind(Enum):
    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    SWITCH = "true or false"
    ENUM = "a name"
    QUANTITY = "a quantity"
    DURATION = "a duration"
    INSTANT = "a time"
    LABELS = "a map of names and values"
    MESSAGE = "a map"


@dataclass(frozen=True, slots=True)
class Field:
    """`name` as written in manifests; `proto` as in the message, with its unit."""

    name: str
    proto: str
    kind: Kind
    repeated: bool
    descriptor: FieldDescriptor


@dataclass(frozen=True, slots=True)
class Alias:
    """Another name of a field. `factor` is set where the alias is a bare number of seconds."""

    proto: str
    factor: int = 0


# Milliseconds that are points in time, not lengths of it.
INSTANTS = {
    "created_ms": "createdAt",
    "deleted_ms": "deletedAt",
    "since_ms": "since",
    "state_since_ms": "stateSince",
    "queued_ms": "queuedAt",
    "decided_ms": "decidedAt",
    "at_ms": "at",
    "started_ms": "startedAt",
    "ready_ms": "readyAt",
    "deadline_ms": "deadline",
    "not_before_ms": "notBefore",
    "not_after_ms": "notAfter",
    "ended_ms": "endedAt",
    "last_ms": "last",
    "next_ms": "next",
    "expires_ms": "expiresAt",
    "used_ms": "usedAt",
    "valid_until_ms": "validUntil",
}

# Names that Kubernetes users have in their fingers, where they mean the same.
ALIASES: dict[str, dict[str, Alias]] = {
    "Metadata": {"namespace": Alias("tenant")},
    "WorkloadSpec": {
        "activeDeadlineSeconds": Alias("active_deadline_s", 1),
        "ttlSecondsAfterFinished": Alias("time_to_live_s", 1),
    },
    "Schedule": {
        "concurrencyPolicy": Alias("concurrency"),
        "startingDeadlineSeconds": Alias("starting_deadline_s", 1),
        "successfulJobsHistoryLimit": Alias("keep_succeeded"),
        "failedJobsHistoryLimit": Alias("keep_failed"),
        "suspend": Alias("suspended"),
    },
    "Task": {
        "count": Alias("replicas"),
        "backoffLimit": Alias("retries"),
        "livenessProbe": Alias("liveness"),
        "readinessProbe": Alias("readiness"),
        "restartPolicy": Alias("restart"),
        "terminationGracePeriodSeconds": Alias("termination_grace_s", 1),
    },
    "Probe": {
        "httpGet": Alias("http"),
        "tcpSocket": Alias("tcp"),
        "exec": Alias("command"),
        "initialDelaySeconds": Alias("start_period_ms", 1000),
        "periodSeconds": Alias("interval_ms", 1000),
        "timeoutSeconds": Alias("timeout_ms", 1000),
    },
    "Port": {"containerPort": Alias("number")},
}

# Left out means this, not zero; so it is always printed.
DEFAULTS: dict[str, dict[str, int]] = {"Task": {"replicas": 1}}

# Metadata that only servers write; what a manifest says here is not applied.
_SERVER_OWNED = ("generation", "created_ms", "revision", "deleted_ms", "uid", "owner", "owner_uid")


Document = TypeVar("Document", bound=Message)


def without_server_fields(document: Document) -> Document:
    """A copy with only what users may write."""
    copy = type(document)()
    copy.CopyFrom(document)
    copy.ClearField("status")
    metadata: Message = getattr(copy, "metadata")  # noqa: B009 - every document has one, which no type says
    for name in _SERVER_OWNED:
        metadata.ClearField(name)
    return copy


@cache
def fields(message: Descriptor) -> dict[str, Field]:
    """The fields of a message by their manifest names, in the order of their numbers."""
    ordered = sorted(message.fields, key=lambda f: f.number)
    return {field.name: field for field in map(_field, ordered)}


@cache
def fields_by_proto(message: Descriptor) -> dict[str, Field]:
    return {field.proto: field for field in fields(message).values()}


def _field(descriptor: FieldDescriptor) -> Field:
    kind = _kind(descriptor)
    stem, _, unit = descriptor.name.rpartition("_")
    if kind is Kind.INSTANT:
        name = INSTANTS[descriptor.name]
    else:
        name = _camel(stem if stem and unit in ("milli", "mib", "ms", "s", "percent") else descriptor.name)
    return Field(name, descriptor.name, kind, descriptor.is_repeated, descriptor)


def _kind(descriptor: FieldDescriptor) -> Kind:
    if descriptor.message_type is not None:
        return Kind.LABELS if descriptor.is_repeated and descriptor.message_type.name == "Label" else Kind.MESSAGE
    if descriptor.enum_type is not None:
        return Kind.ENUM
    if descriptor.name in INSTANTS:
        return Kind.INSTANT
    if descriptor.name.endswith(("_milli", "_mib")):
        return Kind.QUANTITY
    if descriptor.name.endswith(("_ms", "_s")):
        return Kind.DURATION
    return {
        FieldDescriptor.CPPTYPE_STRING: Kind.TEXT,
        FieldDescriptor.CPPTYPE_BOOL: Kind.SWITCH,
        FieldDescriptor.CPPTYPE_FLOAT: Kind.NUMBER,
        FieldDescriptor.CPPTYPE_DOUBLE: Kind.NUMBER,
    }.get(descriptor.cpp_type, Kind.INTEGER)


def _camel(snake: str) -> str:
    first, *rest = snake.split("_")
    return first + "".join(part.capitalize() for part in rest)
