"""The manifest codec: what was printed reads back, every mistake has its place, and no input crashes it."""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atoll import errors, manifest
from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.manifest import schema, source
from tests.support.messages import messages

HEAD = "apiVersion: atoll/v1\nkind: Workload\nmetadata: {name: hello}\n"


WORDS = [
    *("spec", "task", "tasks", "replicas", "resources", "requests", "requires", "status"),
    *(": ", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", "*a", "&a ", "<<", "~", "'", '"', "#", "|"),
    *("1", "64Mi", "!x"),
]


def workload(text: str) -> objects_pb2.Workload:
    (document,) = manifest.parse(HEAD + text, "hello.yaml")
    assert isinstance(document.message, objects_pb2.Workload)
    return document.message


def mistakes(text: str) -> list[str]:
    with pytest.raises(manifest.ManifestError) as caught:
        manifest.parse(text, "hello.yaml")
    return str(caught.value).split("\n")


class TestRoundTrip:
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(messages(objects_pb2.Workload, skip=("status",)))
    def test_workload(self, message: objects_pb2.Workload) -> None:
        self._check("Workload", message)

    @settings(max_examples=50, deadline=None)
    @given(messages(objects_pb2.Tenant, skip=("status",)))
    def test_tenant(self, message: objects_pb2.Tenant) -> None:
        self._check("Tenant", message)

    def _check(self, kind: str, message: objects_pb2.Workload | objects_pb2.Tenant) -> None:
        message.metadata.name = message.metadata.name or "x"
        message.spec.SetInParent()
        document = manifest.tree(message, kind)
        for text in (manifest.to_yaml([document]), manifest.to_json(document)):
            (read,) = manifest.parse(text)
            assert read.message == message
            assert read.kind == kind

    def test_a_list_as_json_reads_back(self) -> None:
        one = workload("spec: {task: {command: [a]}}")
        items = [manifest.tree(one, "Workload")] * 2
        text = manifest.to_json({"apiVersion": "atoll/v1", "kind": "List", "items": items})
        assert [document.message for document in manifest.parse(text)] == [one, one]

    @pytest.mark.parametrize("name", ["ä\x1b[2J😀", "a\x85b", "\u2028\u2029", "\u202e", "\ufeff", "a\r\nb", "\x7f"])
    def test_print_is_ascii_and_exact(self, name: str) -> None:
        tenant = objects_pb2.Tenant()
        tenant.metadata.name = name
        document = manifest.tree(tenant, "Tenant")
        assert manifest.to_json(document).isascii()
        assert manifest.to_yaml([document]).isascii()
        assert json.loads(manifest.to_json(document))["metadata"]["name"] == name
        self._check("Tenant", tenant)


class TestShortForms:
    def test_one_task(self) -> None:
        spec = workload("spec:\n  replicas: 3\n  task: {command: [sleep, 5]}\n").spec
        assert [task.replicas for task in spec.tasks] == [3]
        assert list(spec.tasks[0].command) == ["sleep", "5"]

    def test_replicas_left_out_is_one_and_zero_is_zero(self) -> None:
        assert workload("spec: {task: {}}").spec.tasks[0].replicas == 1
        assert workload("spec: {task: {replicas: 0}}").spec.tasks[0].replicas == 0

    def test_quantities_durations_enums(self) -> None:
        spec = workload(
            "spec:\n  priority: high\n  runClass: exclusive\n  onQuota: reject\n  bounded: 2m\n"
            "  task: {resources: {requests: {cpu: 500m, memory: 1.5Gi}}, readiness: {interval: 500ms}}\n"
        ).spec
        assert spec.priority == objects_pb2.PRIORITY_HIGH
        assert spec.run_class == objects_pb2.RUN_CLASS_EXCLUSIVE
        assert spec.on_quota == objects_pb2.ON_QUOTA_REJECT
        assert spec.bounded_s == 120
        requests = spec.tasks[0].resources.requests
        assert (requests.cpu_milli, requests.memory_mib) == (500, 1536)
        assert spec.tasks[0].readiness.interval_ms == 500

    @pytest.mark.parametrize(
        ("text", "key", "operator", "values"),
        [
            ("gpu=true", "gpu", objects_pb2.SELECTOR_OPERATOR_IN, ["true"]),
            ("zone in (a, b)", "zone", objects_pb2.SELECTOR_OPERATOR_IN, ["a", "b"]),
            ("zone notin (a)", "zone", objects_pb2.SELECTOR_OPERATOR_NOT_IN, ["a"]),
            ("gpu!=old", "gpu", objects_pb2.SELECTOR_OPERATOR_NOT_IN, ["old"]),
            ("gpu", "gpu", objects_pb2.SELECTOR_OPERATOR_EXISTS, []),
            ("'!gpu'", "gpu", objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST, []),
            ("cores>8", "cores", objects_pb2.SELECTOR_OPERATOR_GT, ["8"]),
        ],
    )
    def test_requires(
        self, text: str, key: str, operator: objects_pb2.SelectorOperator.ValueType, values: list[str]
    ) -> None:
        (requirement,) = workload(f"spec:\n  task:\n    requires: {text}\n").spec.tasks[0].requires
        assert (requirement.key, requirement.operator, list(requirement.values)) == (key, operator, values)

    def test_several_requirements_in_one_text(self) -> None:
        task = workload("spec: {task: {requires: 'gpu=true,zone in (a,b),!old', prefers: zone=a}}").spec.tasks[0]
        assert [r.key for r in task.requires] == ["gpu", "zone", "old"]
        assert task.prefers[0].weight == 50

    def test_what_kubernetes_users_write(self) -> None:
        task = workload(
            "spec:\n  task:\n    terminationGracePeriodSeconds: 5\n    restartPolicy: OnFailure\n"
            "    env: [{name: B, value: x}, {name: A, value: 1.10}]\n    ports: [{containerPort: 80}, 81]\n"
            "    nodeSelector: {disk: ssd}\n    tolerations: [{key: a, operator: Exists, effect: NoSchedule}]\n"
            "    livenessProbe: {exec: {command: [ok]}}\n"
            "    readinessProbe: {httpGet: {port: 80, path: /}, periodSeconds: 2, initialDelaySeconds: 1}\n"
        ).spec.tasks[0]
        assert task.termination_grace_s == 5
        assert task.restart.mode == objects_pb2.RESTART_MODE_ON_FAILURE
        assert [(e.key, e.value) for e in task.env] == [("A", "1.10"), ("B", "x")]
        assert [p.number for p in task.ports] == [80, 81]
        assert task.tolerations[0].effect == objects_pb2.TAINT_EFFECT_NO_SCHEDULE
        assert list(task.liveness.command.command) == ["ok"]
        assert (task.readiness.interval_ms, task.readiness.start_period_ms) == (2000, 1000)

    def test_anchors_and_merges(self) -> None:
        spec = workload(
            "spec:\n  tasks:\n    - &base {name: a, replicas: 2, command: [x]}\n    - {<<: *base, name: b}\n"
        ).spec
        assert [(t.name, t.replicas, list(t.command)) for t in spec.tasks] == [("a", 2, ["x"]), ("b", 2, ["x"])]

    def test_status_is_skipped(self) -> None:
        assert not workload("spec: {}\nstatus: {whatever: [1]}\n").HasField("status")


class TestMistakes:
    def test_all_at_once_with_their_places(self) -> None:
        text = HEAD + (
            "spec:\n"
            "  prioriti: high\n"
            "  replicas: many\n"
            "  task:\n"
            "    replicaz: 3\n"
            "    image: 7\n"
            "    resources: {requests: {cpu: 1, memory: 512}}\n"
            "    terminationGrace: 30\n"
            "    restart: perhaps\n"
            "    command: sleep 5\n"
            "    command: [x]\n"
            "---\n"
            "kind: Worklod\n"
        )
        assert mistakes(text) == [
            'hello.yaml:5:3: spec.prioriti: unknown field, did you mean "priority"?',
            "hello.yaml:6:13: spec.task.replicas: must be a whole number, not 'many'",
            'hello.yaml:8:5: spec.task.replicaz: unknown field, did you mean "replicas"?',
            'hello.yaml:9:12: spec.task.image: must be text, and 7 is not; write "7"',
            "hello.yaml:10:44: spec.task.resources.requests.memory: '512' has no unit; did you mean 512Mi?",
            "hello.yaml:11:23: spec.task.terminationGrace: '30' is not a duration, write for example 30s, 500ms or"
            " 1h30m; did you mean 30s?",
            "hello.yaml:12:14: spec.task.restart: 'perhaps' is not one of always, on-failure, never",
            "hello.yaml:13:14: spec.task.command: must be a list, not 'sleep 5'; write ['sleep 5']",
            "hello.yaml:14:5: spec.task.command: given twice, first in line 13",
            "hello.yaml:16:1: apiVersion: is missing; write apiVersion: atoll/v1",
            "hello.yaml:16:7: kind: 'Worklod' is not one of Workload, Tenant, SchedulerPolicy,"
            ' did you mean "Workload"?',
        ]

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("[]", "spec: must be a map, not a list"),
            ("~", "spec: must be a map, not nothing"),
            ("{task: {replicas: 3000000000}}", "spec.task.replicas: 3000000000 is out of range"),
            ("{task: {replicas: '3'}}", "spec.task.replicas: must be a whole number, not '3'"),
            ("{task: {replicas: 0x10}}", "spec.task.replicas: must be a whole number, not '0x10'"),
            ("{task: {env: {A: [1]}}}", "spec.task.env.A: must be text, not a list"),
            ("{task: {env: [{name: A}]}}", "spec.task.env[0]: must be a map of 'name' and 'value'"),
            ("{task: {ports: [0]}}", "spec.task.ports[0]: '0' is not a port, 1 to 65535"),
            ("{task: {requires: 'a b'}}", "spec.task.requires: 'a b' is no label requirement"),
            ("{task: {readiness: {http: {}, tcp: {}}}}", "spec.task.readiness.tcp: 'http' is given too"),
            ("{task: {liveness: {}, livenessProbe: {}}}", "spec.task.livenessProbe: says the same as 'liveness'"),
            ("{replicas: 3}", "spec.replicas: 'replicas' stands beside 'task', and there is no 'task'"),
            ("{task: {}, tasks: []}", "spec.task: 'task' is for a spec with one task"),
            ("{task: {resources: {cpu: 1, requests: {}}}}", "spec.task.resources.cpu: stands beside 'requests'"),
            ("{task: {tolerations: [{operator: Maybe}]}}", "spec.task.tolerations[0].operator: must be Equal or"),
            ("{task: {terminationGracePeriodSeconds: 5s}}", "spec.task.terminationGracePeriodSeconds: must be a whole"),
            ('{task: {name: "\\ud800"}}', "spec.task.name: has half of a surrogate pair"),
        ],
    )
    def test_one(self, spec: str, expected: str) -> None:
        (mistake,) = mistakes(f"{HEAD}spec: {spec}\n")
        assert expected in mistake
        assert mistake.startswith("hello.yaml:4:")

    def test_every_mistake_is_a_user_error_with_a_stable_code(self) -> None:
        with pytest.raises(errors.Invalid) as caught:
            manifest.parse("kind: x")
        assert caught.value.code == "E1001"
        assert {mistake.path for mistake in caught.value.mistakes} >= {"kind", "apiVersion"}

    def test_nothing_to_apply(self) -> None:
        assert mistakes("# only a comment\n---\n") == ["hello.yaml: holds no document"]

    def test_too_large_too_deep_too_wide(self) -> None:
        assert "larger than" in mistakes(" " * (source.MAX_BYTES + 1))[0]
        assert "levels deep" in mistakes("[" * 5000)[0]
        items = "\n".join(f"  - &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(9))
        bomb = f"{HEAD}spec:\n  regions:\n{items}\n"
        assert mistakes(bomb)  # ends, and says something
        wide = (
            f"{HEAD}spec:\n  tasks:\n  - &t {{command: &c [{'x, ' * 1000}]}}\n{'  - *t' + chr(10) * 1}"
            + "  - *t\n" * 500
        )
        assert any("counting aliases" in mistake for mistake in mistakes(wide))

    def test_a_list_that_holds_itself(self) -> None:
        text = "&a\napiVersion: atoll/v1\nkind: List\nitems: [*a]\n"
        assert any("a list in a list" in mistake for mistake in mistakes(text))

    def test_a_servers_mistake_finds_its_place(self) -> None:
        (document,) = manifest.parse(HEAD + "spec:\n  task:\n    resources:\n      memory: 64Mi\n", "hello.yaml")
        mark = document.mark("spec.tasks[0].resources.requests.memory", "too little")
        assert str(mark) == "hello.yaml:7:15: spec.tasks[0].resources.requests.memory: too little"
        assert document.mark("spec.tasks[0].resources.requests.cpu", "is missing").line == 7
        assert document.mark("nowhere", "x").line == 0


class TestNoInputCrashes:
    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
    @example(b"\xff\xfe")
    @example("\x00")
    @example('"\\U00110000"')
    @example("? [a]\n: b")
    @example("&a {<<: *a}")
    @example("&a [*a]")
    @example("!!python/object:os.system x")
    def test_any_text(self, text: str | bytes) -> None:
        _refused_or_read(text)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.sampled_from(WORDS), max_size=30))
    def test_any_heap_of_manifest_words(self, words: list[str]) -> None:
        _refused_or_read(HEAD + "".join(words))


def _refused_or_read(text: str | bytes) -> None:
    """Anything but a document or a ManifestError fails the test."""
    with contextlib.suppress(manifest.ManifestError):
        assert manifest.parse(text)


def test_no_two_fields_have_one_name() -> None:
    """Taking units out of names must not make two of them the same."""
    for file in (objects_pb2, regional_pb2, agent_pb2):
        for descriptor in file.DESCRIPTOR.message_types_by_name.values():
            assert len(schema.fields(descriptor)) == len(descriptor.fields), descriptor.name


def test_aliases_and_defaults_name_fields_that_exist() -> None:
    for table in (schema.ALIASES, schema.DEFAULTS):
        for message, names in table.items():
            known = objects_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name
            for value in names.values() if table is schema.ALIASES else ():
                assert isinstance(value, schema.Alias)
                assert value.proto in known
            assert table is schema.ALIASES or set(names) <= set(known)
