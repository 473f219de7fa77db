"""Short forms of the spread over regions and over nodes."""

import pytest

from atoll import manifest
from atoll.api.v1 import objects_pb2

HEAD = "apiVersion: atoll/v1\nkind: Workload\nmetadata: {name: hello}\n"
EU = objects_pb2.LabelRequirement(key="jurisdiction", operator=objects_pb2.SELECTOR_OPERATOR_IN, values=["eu"])


def _spec(text: str) -> objects_pb2.WorkloadSpec:
    (document,) = manifest.parse(HEAD + text)
    assert isinstance(document.message, objects_pb2.Workload)
    return document.message.spec


def test_words_are_rules_of_topology_spread() -> None:
    short = _spec("spec: {task: {topologySpread: 'zone, rack'}}")
    full = _spec("spec: {task: {topologySpread: [{within: zone}, {within: rack}]}}")
    assert short == full and [rule.within for rule in short.tasks[0].topology_spread] == ["zone", "rack"]


def test_words_are_rules_of_colocation() -> None:
    short = _spec("spec: {task: {colocateWith: cache, avoidColocating: 'web, service=database, tier in (a,b)'}}")
    full = _spec(
        "spec: {task: {colocateWith: [{workload: cache}], avoidColocating: [{workload: web}, "
        "{labels: {service: database}}, {labels: [{key: tier, operator: In, values: [a, b]}]}]}}"
    )
    assert short == full
    assert [rule.workload for rule in short.tasks[0].avoid_colocating] == ["web", "", ""]


def test_a_word_is_a_strategy() -> None:
    short, full = "spec: {task: {}, spread: even}", "spec: {task: {}, spread: {strategy: even}}"
    assert _spec(short) == _spec(full)
    assert _spec(short).spread.strategy == objects_pb2.SPREAD_STRATEGY_EVEN


@pytest.mark.parametrize(
    "written",
    [
        "jurisdiction=eu",
        "jurisdiction in (eu)",
        "[jurisdiction=eu]",
        "[{key: jurisdiction, operator: In, values: [eu]}]",
    ],
)
def test_residency(written: str) -> None:
    assert list(_spec(f"spec: {{task: {{}}, spread: {{residency: {written}}}}}").spread.residency) == [EU]


def test_a_protected_part_is_written_by_region() -> None:
    text = "apiVersion: atoll/v1\nkind: Tenant\nmetadata: {{name: shop}}\nspec: {{protected: {}}}\n"
    short, full = (
        manifest.parse(text.format(said), "a.yaml")[0].message
        for said in ("{eu: {cpu: 2, memory: 1Gi}}", "[{region: eu, amount: {cpu: 2, memory: 1Gi}}]")
    )
    assert short == full and isinstance(short, objects_pb2.Tenant)
    assert [(part.region, part.amount.cpu_milli) for part in short.spec.protected] == [("eu", 2_000)]


def test_fixed_counts_say_how_many_replicas_there_are_where_the_task_does_not() -> None:
    short = _spec("spec: {task: {}, spread: {fixed: {eu-west: 2, us-east: 1}}}")
    full = _spec("spec: {task: {}, spread: {fixed: [{region: eu-west, replicas: 2}, {region: us-east, replicas: 1}]}}")
    assert short == full
    assert [(count.region, count.replicas) for count in short.spread.fixed] == [("eu-west", 2), ("us-east", 1)]
    assert short.tasks[0].replicas == 0, "left to the server, which adds up"
    assert _spec("spec: {replicas: 3, task: {}, spread: {fixed: {eu-west: 3}}}").tasks[0].replicas == 3
    assert _spec("spec: {task: {}, spread: even}").tasks[0].replicas == 1


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ("spread: evn", "4:26: spec.spread: 'evn' is not one of"),
        ("spread: {fixed: {eu: many}}", "4:39: spec.spread.fixed.replicas: must be a whole number"),
        ("spread: {residency: 'a b'}", "4:38: spec.spread.residency: 'a b' is no label requirement"),
        ("spread: {resident: a}", '4:27: spec.spread.resident: unknown field, did you mean "residency"?'),
    ],
)
def test_mistakes_have_their_place(written: str, mistake: str) -> None:
    with pytest.raises(manifest.ManifestError) as caught:
        manifest.parse(HEAD + f"spec: {{task: {{}}, {written}}}", "x")
    assert mistake in str(caught.value)


def test_a_servers_mistake_in_a_count_is_shown_at_its_region() -> None:
    (document,) = manifest.parse(
        HEAD + "spec:\n  task: {}\n  spread:\n    fixed:\n      eu: 1\n      nowhere: 2\n", "x"
    )
    mark = document.mark("spec.spread.fixed[1].region", "region 'nowhere' is not known")
    assert (mark.line, mark.column) == (9, 7)


def test_a_deadline_counts_from_now_or_is_a_point_in_time() -> None:
    text = "spec: {task: {}, type: job, deadline: %s, estimate: 10m}"
    (document,) = manifest.parse(HEAD + text % "now+2h", now_ms=1_000)
    assert isinstance(document.message, objects_pb2.Workload)
    assert (document.message.spec.deadline_ms, document.message.spec.estimate_ms) == (7_201_000, 600_000)
    assert _spec(text % "'1970-01-01T00:00:02Z'").deadline_ms == 2_000
    for wrong in ("now", "now+", "now+2", "now-2h", "tomorrow"):
        with pytest.raises(manifest.ManifestError, match=r"spec\.deadline"):
            manifest.parse(HEAD + text % wrong)


def test_weights_are_a_map_of_scores_and_read_back_what_is_printed() -> None:
    head = "apiVersion: atoll/v1\nkind: SchedulerPolicy\nmetadata: {name: p}\nspec:\n  strategies:\n    - name: mine\n"
    (short,) = manifest.parse(head + "      weights: {warm: 0.0009765625, apart: 2}")
    (full,) = manifest.parse(head + "      weights: [{score: warm, weight: 0.0009765625}, {score: apart, weight: 2}]")
    assert short.message == full.message and isinstance(short.message, objects_pb2.SchedulerPolicy)
    assert [one.weight for one in short.message.spec.strategies[0].weights] == [1 / 1024, 2]
    (again,) = manifest.parse(manifest.to_yaml([manifest.tree(short.message, "SchedulerPolicy")]))
    assert again.message == short.message


def test_a_bare_url_is_a_notification_of_every_outcome() -> None:
    spec = _spec("spec: {notify: ['https://a/b', {url: https://c/, on: [failed]}]}")
    assert [(wish.url, list(wish.on)) for wish in spec.notify] == [
        ("https://a/b", []),
        ("https://c/", [objects_pb2.JOB_OUTCOME_FAILED]),
    ]
