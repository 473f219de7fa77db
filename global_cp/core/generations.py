"""What documents that users change have in common: whether a change may be made to what is stored, and the generation
that it makes.

Decides on values only; an expected "no" is an error value. Leaves to others: what may be in a document.
"""

from atoll.api.v1 import objects_pb2
from atoll.errors import AtollError, Conflict, NotFound

GENERATION_MOVED, GOING = "E3002", "E3004"

Document = objects_pb2.Workload | objects_pb2.Tenant


def same_wish(before: Document, wanted: Document) -> bool:
    """Whether the user asks for what is stored already."""
    old, new = before.metadata, wanted.metadata
    return (
        before.spec == wanted.spec
        and list(old.labels) == list(new.labels)
        and list(old.annotations) == list(new.annotations)
    )


def carry_on(metadata: objects_pb2.Metadata, before: Document | None, *, changed: bool, uid: str, now_ms: int) -> None:
    """The server's part of the metadata. The generation is raised only when the spec changed."""
    if before is None:
        metadata.generation, metadata.created_ms, metadata.uid = 1, now_ms, uid
        return
    metadata.generation = before.metadata.generation + changed
    for name in ("created_ms", "uid", "owner", "owner_uid"):
        setattr(metadata, name, getattr(before.metadata, name))


def stale(before: Document | None, if_generation: int) -> AtollError | None:
    if before is not None and before.metadata.deleted_ms:
        name = before.metadata.name
        return Conflict(f"{name} is being deleted", hint="wait until it is gone", code=GOING)
    if not if_generation:
        return None
    if before is None:
        return Conflict(f"it does not exist, so its generation is not {if_generation}", code=GENERATION_MOVED)
    return moved(before.metadata, if_generation) if before.metadata.generation != if_generation else None


def moved(metadata: objects_pb2.Metadata, if_generation: int) -> AtollError:
    return Conflict(
        f"{metadata.name} is at generation {metadata.generation}, not {if_generation}",
        hint="read it again, then retry",
        code=GENERATION_MOVED,
    )


def no_workload(tenant: str, name: str) -> AtollError:
    return NotFound(f"tenant {tenant[:63]!r} has no workload {name[:63]!r}")
