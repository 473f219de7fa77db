"""`run`: what its options say is what a manifest says."""

import json
from pathlib import Path

from tests.support.fake_global import FakeCluster
from tests.unit.atoll.cli.conftest import Run


def test_run_makes_a_job(atoll: Run, cluster: FakeCluster) -> None:
    words = ("--job", "--count", "8", "--parallelism", "3", "--retries", "2", "--estimate", "10m", "--no-wait")
    done = atoll("run", "parts", *words, "-o", "json", "--", "x")
    assert done.code == 0
    spec = json.loads(done.out)["spec"]
    (task,) = spec["tasks"]
    assert (spec["type"], spec["estimate"], task["replicas"], task["parallelism"]) == ("job", "10m", 8, 3)
    assert task["retries"]["limit"] == 2


def test_run_says_what_a_manifest_says(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    task = "tolerations: dedicated=db, topologySpread: 'zone,rack', colocateWith: cache, avoidColocating: a"
    task += ", prefers: zone=a, restart: never, minReady: 2s, gang: true"
    spec = f"onQuota: reject, runClass: bounded, bounded: 30s, task: {{command: [x], {task}}}"
    text = f"apiVersion: atoll/v1\nkind: Workload\nmetadata: {{name: a}}\nspec: {{{spec}}}\n"
    (home / "a.yaml").write_text(text)
    asked = json.loads(atoll("apply", "-f", "a.yaml", "--no-wait", "-o", "json").out)["spec"]
    words = "--on-quota reject --run-class bounded --bounded 30s --tolerate dedicated=db --topology-spread zone"
    words += " --topology-spread rack --colocate-with cache --avoid-colocating a --prefers zone=a --restart never"
    words += " --min-ready 2s --gang"
    said = json.loads(atoll("run", "a", *words.split(), "--no-wait", "-o", "json", "--", "x").out)["spec"]
    for spec in (asked, said):
        spec.pop("spread", None)
        for name in ("command", "resources", "replicas", "ports", "env", "readiness"):
            spec["tasks"][0].pop(name, None)
    assert said == asked and len(said["tasks"][0]["topologySpread"]) == 2


def test_the_help_of_run_has_its_options_in_groups(atoll: Run) -> None:
    told = atoll("run", "--help").out
    titles = ["Options:", "What it gets:", "Where it runs:", "How it lives:", "Jobs:"]
    assert sorted(titles, key=told.index) == titles and "\n  NAME\n" not in told


def test_run_asks_for_devices_disk_and_nodes(atoll: Run, cluster: FakeCluster) -> None:
    words = ("--gpu", "500m", "--disk", "1Gi", "--requires", "zone=a", "--requires", "!old", "--no-wait")
    done = atoll("run", "train", *words, "-o", "json", "--", "x")
    (task,) = json.loads(done.out)["spec"]["tasks"]
    assert {"gpu": "500m", "disk": "1Gi"}.items() <= task["resources"]["requests"].items()
    assert [rule["key"] for rule in task["requires"]] == ["zone", "old"]
    refused = atoll("run", "train", "--gpu", "much", "--requires", "=", "--no-wait", "--", "x")
    assert refused.code == 2 and "requests.gpu" in refused.err and "requires[0]" in refused.err
