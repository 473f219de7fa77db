"""`policy`, and what apply and plan do with one, as the real core decides."""

import json
from pathlib import Path

import yaml

from tests.support.fake_global import FakeCluster
from tests.unit.atoll.cli.conftest import Run

HEAD = "apiVersion: atoll/v1\nkind: SchedulerPolicy\nmetadata: {name: house}\nspec:\n  strategies:\n"
CALM = HEAD + "    - {name: calm, weights: {emptiness: 1}}\n"
PACKED = CALM + "    - {name: bin-pack, weights: {fullness: 3, warm: 0.5}}\n"


def test_a_revision_is_made_tried_promoted_and_rolled_back(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    (home / "policy.yaml").write_text(CALM)
    assert atoll("policy", "create", "-f", "policy.yaml", "--dry-run").out == "schedulerpolicy/1 created (dry run)\n"
    assert atoll("policy", "create", "-f", "policy.yaml").out == "schedulerpolicy/1 created\n"
    assert atoll("apply", "-f", "policy.yaml").out == "schedulerpolicy/1 unchanged\n"
    (home / "policy.yaml").write_text(PACKED)
    plan = atoll("plan", "-f", "policy.yaml")
    assert plan.code == 9 and plan.out.startswith("+ schedulerpolicy/house, revision 2 created\n")
    assert atoll("apply", "-f", "policy.yaml").out == "schedulerpolicy/2 created\n"
    tried = atoll("policy", "canary", "2", "--region", "r1")
    assert tried.out == "policy revision 0 in force, revision 2 in r1\n"
    listed = [line.split("  ")[0] for line in atoll("policy", "list").out.splitlines()]
    assert listed == ["REVISION", "0", "1", "2"]
    assert "on trial in r1" in atoll("policy", "list").out
    assert atoll("policy", "promote", "1").out == "policy revision 1 in force\n"
    assert json.loads(atoll("policy", "promote", "2", "-o", "json").out)["inForce"]["policyRevision"] == 2
    assert atoll("policy", "rollback").out == "policy revision 1 in force\n"
    assert atoll("policy", "rollback", "1").out == "policy revision 1 in force (unchanged)\n"
    assert atoll("policy", "rollback").out == "policy revision 0 in force\n"
    nothing = atoll("policy", "rollback")
    assert nothing.code == 4 and "E3021" in nothing.err


def test_get_and_diff_tell_weights(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    for text in (CALM, PACKED):
        (home / "policy.yaml").write_text(text)
        assert atoll("apply", "-f", "policy.yaml").code == 0
    built_in = yaml.safe_load(atoll("policy", "get", "0").out)
    assert [one["name"] for one in built_in["spec"]["strategies"]][:3] == [
        "balanced",
        "best-fit",
        "best-fit-decreasing",
    ]
    (home / "again.yaml").write_text(atoll("policy", "get", "2").out)
    assert atoll("apply", "-f", "again.yaml").out == "schedulerpolicy/2 unchanged\n"
    rows = [line.split() for line in atoll("policy", "diff", "1", "2").out.splitlines()]
    assert rows == [
        ["STRATEGY", "WHAT", "1", "2"],
        ["bin-pack", "fullness", "1", "3"],
        ["bin-pack", "warm", "0.0625", "0.5"],
    ]
    back = json.loads(atoll("policy", "diff", "2", "0", "-o", "json").out)["items"]
    assert {"strategy": "calm", "what": "emptiness", "before": 1.0, "after": None} in back
    alike = atoll("policy", "diff", "1", "1")
    assert (alike.code, alike.out) == (0, "") and "weigh alike" in alike.err
    assert atoll("policy", "get", "9").code == 1


def test_mistakes_are_told_where_they_stand(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    (home / "policy.yaml").write_text(HEAD + "    - {name: calm, weights: {beauty: 1}}\n")
    wrong = atoll("apply", "-f", "policy.yaml")
    assert wrong.code == 2 and "policy.yaml:6:" in wrong.err and "'beauty' is not a score" in wrong.err
    (home / "tenant.yaml").write_text("apiVersion: atoll/v1\nkind: Tenant\nmetadata: {name: a}\nspec: {}\n")
    assert "a Tenant is no policy" in atoll("policy", "create", "-f", "tenant.yaml").err
