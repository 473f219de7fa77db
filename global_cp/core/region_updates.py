"""What operators change of a region: its labels, and whether it takes work.

Decides the next record; what becomes of the replicas there is decided in spread.py. A region's labels are those of its
own configuration until an operator changes anything of it; from then on they are the operator's (`follow_hello`).
A region that drains is cordoned too; uncordoning it ends the drain.
"""

from collections.abc import Iterable, Sequence

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid, Mistake
from atoll.model.costs import mistake_in_cost
from atoll.model.names import mistake_in_label_key, mistake_in_label_value

MOST_LABELS = 64
AS_REGISTERED = 1  # the generation of a region that no operator has changed


def updated(before: objects_pb2.Region, request: global_pb2.UpdateRegionRequest) -> objects_pb2.Region | Invalid:
    """The region as asked for; `before` itself when nothing changes."""
    labels = {label.key: label.value for label in before.metadata.labels}
    labels.update({label.key: label.value for label in request.labels})
    for key in request.removed_labels:
        labels.pop(key, None)
    mistakes = mistakes_in_labels(request.labels, "labels")
    if len(labels) > MOST_LABELS:
        mistakes.append(Mistake("labels", f"would be {len(labels)}; at most {MOST_LABELS} are allowed"))
    if mistakes:
        return Invalid("the change of the region is not valid", mistakes=tuple(mistakes))
    after = objects_pb2.Region()
    after.CopyFrom(before)
    _set_labels(after, labels)
    if request.HasField("cordoned"):
        after.cordoned = request.cordoned
        after.draining = after.draining and request.cordoned
    if request.HasField("draining"):
        after.draining = request.draining
        after.cordoned = after.cordoned or request.draining
    if after == before:
        return before
    after.metadata.generation += 1
    return after


def follow_hello(record: objects_pb2.Region, labels: Sequence[objects_pb2.Label]) -> objects_pb2.Region | None:
    """The region with the labels of its configuration, where these still count and are others."""
    if record.metadata.generation != AS_REGISTERED:
        return None
    after = objects_pb2.Region()
    after.CopyFrom(record)
    _set_labels(after, {label.key: label.value for label in labels})
    return after if after != record else None


def mistakes_in_labels(labels: Sequence[objects_pb2.Label], path: str) -> list[Mistake]:
    found = []
    for index, label in enumerate(labels):
        if mistake := mistake_in_label_key(label.key):
            found.append(Mistake(f"{path}[{index}]", f"key {mistake}"))
        if mistake := mistake_in_label_value(label.value):
            found.append(Mistake(f"{path}[{index}]", f"value {mistake}"))
        elif mistake := mistake_in_cost(label.key, label.value):
            found.append(Mistake(f"{path}[{index}]", mistake))
    return found


def legal_labels(labels: Iterable[objects_pb2.Label]) -> list[objects_pb2.Label]:
    """Those that may be stored, sorted; a region's own word is not worth its session."""
    return sorted(
        (label for label in list(labels)[:MOST_LABELS] if not mistakes_in_labels([label], "")), key=lambda x: x.key
    )


def _set_labels(region: objects_pb2.Region, labels: dict[str, str]) -> None:
    del region.metadata.labels[:]
    region.metadata.labels.extend(objects_pb2.Label(key=key, value=labels[key]) for key in sorted(labels))
