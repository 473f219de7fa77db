"""Short forms: what people may write instead of the full shape of a message.

`spec.task` with `spec.replicas` for one task, `requires: gpu=true`, `resources: {cpu: 500m}`, `ports: [8080]`,
`restart: never`, `spread: even`, `fixed: {eu: 2}`, `weights: {fullness: 1}`, a list where a probe's command is meant.
Each form ends as the full message; nothing else knows them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from google.protobuf.message import Message
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from atoll.api.v1 import objects_pb2
from atoll.manifest import scalars, schema, selectors
from atoll.model.names import mistake_in_name

DEFAULT_PREFERENCE_WEIGHT = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a map. `written` is how the user spelled the way to the value, where a form has moved it."""

    name: str
    key: Node
    value: Node
    merged: bool = False
    written: str = ""


class FormError(ValueError):
    """The entries contradict each other. `at` is where."""

    def __init__(self, at: Entry, message: str) -> None:
        super().__init__(message)
        self.at = at


def _requirement(text: str) -> Message:
    return selectors.parse_requirement(text)


def _preference(text: str) -> Message:
    requirement = selectors.parse_requirement(text)
    return objects_pb2.LabelPreference(requirement=requirement, weight=DEFAULT_PREFERENCE_WEIGHT)


def _restart(text: str) -> Message:
    field = objects_pb2.RestartPolicy.DESCRIPTOR.fields_by_name["mode"]
    assert field.enum_type is not None
    mode = scalars.parse_enum(text, field.enum_type)
    return objects_pb2.RestartPolicy(mode=objects_pb2.RestartMode.ValueType(mode))


def _port(text: str) -> Message:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= 65_535:
        raise scalars.ScalarError(f"{text[:40]!r} is not a port, 1 to 65535")
    return objects_pb2.Port(number=int(text))


def _spread(text: str) -> Message:
    field = objects_pb2.Spread.DESCRIPTOR.fields_by_name["strategy"]
    assert field.enum_type is not None
    strategy = scalars.parse_enum(text, field.enum_type)
    return objects_pb2.Spread(strategy=objects_pb2.SpreadStrategy.ValueType(strategy))


def _retries(text: str) -> Message:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > 1_000:
        raise scalars.ScalarError(f"{text[:40]!r} is no number of tries, 0 to 1000")
    return objects_pb2.RetryPolicy(limit=int(text))


def _schedule(text: str) -> Message:
    return objects_pb2.Schedule(cron=text)


def _notification(text: str) -> Message:
    return objects_pb2.Notification(url=text)


def _topology_spread(text: str) -> Message:
    return objects_pb2.TopologySpread(within=text.strip())


def _colocation(text: str) -> Message:
    """A bare word is a workload's name, anything else a requirement of workloads' labels."""
    text = text.strip()
    if not mistake_in_name(text):
        return objects_pb2.Colocation(workload=text)
    return objects_pb2.Colocation(labels=[selectors.parse_requirement(text)])


def _tolerated(text: str) -> Message:
    """KEY, KEY=VALUE, and with :EFFECT behind; without, every effect."""
    named, colon, effect = text.strip().partition(":")
    key, _, value = named.partition("=")
    number = scalars.parse_enum(effect, objects_pb2.TaintEffect.DESCRIPTOR) if colon else 0
    return objects_pb2.Toleration(key=key, value=value, effect=objects_pb2.TaintEffect.ValueType(number))


# A scalar where this message is meant.
TEXT: dict[str, Callable[[str], Message]] = {
    "LabelRequirement": _requirement,
    "LabelPreference": _preference,
    "TopologySpread": _topology_spread,
    "Colocation": _colocation,
    "Toleration": _tolerated,
    "RestartPolicy": _restart,
    "RetryPolicy": _retries,
    "Schedule": _schedule,
    "Notification": _notification,
    "Port": _port,
    "Spread": _spread,
}
# A scalar where a list of this message is meant: several, separated by commas.
TEXT_LISTS = ("LabelRequirement", "LabelPreference", "TopologySpread", "Colocation", "Toleration")
# A list where this message is meant: its one field.
LISTS = {"CommandCheck": "command"}


def rewrite(message: str, entries: list[Entry]) -> list[Entry]:
    """The entries of a map in full shape. Raises FormError."""
    if message == "WorkloadSpec":
        return _one_task(entries)
    if message == "Task":
        return _completions(entries)
    if message == "ResourceRequirements":
        return _requests_only(entries)
    if message == "Toleration":
        return _toleration(entries)
    if message == "Spread":
        return [_by_name(entry, "fixed", "region", "replicas") for entry in entries]
    if message == "TenantSpec":
        return [_by_name(entry, "protected", "region", "amount") for entry in entries]
    if message == "Strategy":
        return [_by_name(entry, "weights", "score", "weight") for entry in entries]
    if message == "Colocation":
        return [_labels_alike(entry) for entry in entries]
    return entries


BESIDE_TASK = ("replicas", "count", "completions", "parallelism", "retries", "backoffLimit")


def _one_task(entries: list[Entry]) -> list[Entry]:
    """`task`, with `replicas` and others of its fields beside it, becomes the only entry of `tasks`."""
    named = {entry.name: entry for entry in entries}
    task, beside = named.get("task"), [entry for entry in entries if entry.name in BESIDE_TASK]
    if task is None and not beside:
        return entries
    at = task or beside[0]
    if "tasks" in named:
        raise FormError(at, f"{at.name!r} is for a spec with one task; this one has 'tasks', so say it there")
    if task is None:
        raise FormError(at, f"{at.name!r} stands beside 'task', and there is no 'task'")
    value = task.value
    if beside and isinstance(value, MappingNode):
        more = [(entry.key, entry.value) for entry in beside]
        value = MappingNode(value.tag, [*value.value, *more], value.start_mark, value.end_mark)
    tasks = SequenceNode("", [value], value.start_mark, value.end_mark)
    rest = [entry for entry in entries if entry is not task and entry not in beside]
    return [*rest, replace(task, name="tasks", value=tasks, written="task")]


def _completions(entries: list[Entry]) -> list[Entry]:
    """`completions` alone says how many replicas there are."""
    named = {entry.name: entry for entry in entries}
    said = named.get("completions")
    if said is None or "replicas" in named or "count" in named or not isinstance(said.value, ScalarNode):
        return entries
    if not str(said.value.value).isdecimal():
        return entries
    return [*entries, replace(said, name="replicas")]


def _requests_only(entries: list[Entry]) -> list[Entry]:
    """`cpu` and `memory` directly below `resources` are requests."""
    amounts = schema.fields(objects_pb2.Resources.DESCRIPTOR)
    bare = [entry for entry in entries if entry.name in amounts]
    if not bare:
        return entries
    if any(entry.name == "requests" for entry in entries):
        raise FormError(bare[0], "stands beside 'requests'; say it there")
    first = bare[0]
    node = MappingNode("", [(e.key, e.value) for e in bare], first.key.start_mark, first.key.end_mark)
    rest = [entry for entry in entries if entry.name not in amounts]
    return [*rest, Entry("requests", first.key, node, first.merged, written="")]


def _by_name(entry: Entry, field: str, name: str, what: str) -> Entry:
    """`fixed: {eu: 2, us: 1}`, a map of regions, becomes the list of regions and replicas."""
    node = entry.value
    if entry.name != field or not isinstance(node, MappingNode):
        return entry
    items = []
    for key, value in node.value:
        words = [ScalarNode("tag:yaml.org,2002:str", word, key.start_mark, key.end_mark) for word in (name, what)]
        items.append(MappingNode("", [(words[0], key), (words[1], value)], key.start_mark, value.end_mark))
    return replace(entry, value=SequenceNode("", items, node.start_mark, node.end_mark))


def _labels_alike(entry: Entry) -> Entry:
    """`labels: {app: web}`, a map, becomes the list of requirements that it stands for."""
    node = entry.value
    pairs = node.value if entry.name == "labels" and isinstance(node, MappingNode) else ()
    if not pairs or not all(isinstance(key, ScalarNode) and isinstance(value, ScalarNode) for key, value in pairs):
        return entry
    words = [
        ScalarNode("tag:yaml.org,2002:str", f"{key.value}={value.value}", key.start_mark, value.end_mark)
        for key, value in pairs
    ]
    return replace(entry, value=SequenceNode("", words, node.start_mark, node.end_mark))


def _toleration(entries: list[Entry]) -> list[Entry]:
    """Kubernetes' `operator`: Equal needs a value, Exists has none; the message tells them apart by the value."""
    operator = next((entry for entry in entries if entry.name == "operator"), None)
    if operator is None:
        return entries
    word = operator.value.value if isinstance(operator.value, ScalarNode) else ""
    valued = any(entry.name == "value" for entry in entries)
    if word not in ("Equal", "Exists"):
        raise FormError(operator, "must be Equal or Exists")
    if valued != (word == "Equal"):
        raise FormError(operator, "Equal needs a value" if word == "Equal" else "Exists takes no value")
    return [entry for entry in entries if entry is not operator]
