"""plan, top, status, quota, region and completion against the in-memory cluster."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from atoll.api.v1 import objects_pb2
from atoll.cli.plan import TO_PROCESS, _driver_notes
from atoll.cli.views import rounded
from tests.support.fake_global import FakeCluster
from tests.unit.atoll.cli.conftest import Run

TENANT = "apiVersion: atoll/v1\nkind: Tenant\nmetadata: {name: default}\nspec: {quota: {cpu: 1, memory: 1Gi}}\n"
WORKLOAD = (
    "apiVersion: atoll/v1\nkind: Workload\nmetadata: {name: web}\n"
    "spec: {task: {command: [x], replicas: %d, resources: {requests: {cpu: 400m, memory: 64Mi}}}}\n"
)


def test_a_plan_says_what_would_change_and_changes_nothing(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    (home / "tenant.yaml").write_text(TENANT)
    (home / "web.yaml").write_text(WORKLOAD % 2)
    assert atoll("apply", "-f", "tenant.yaml").code == 0
    first = atoll("plan", "-f", "web.yaml")
    assert (first.code, first.out) == (9, "+ workload/web created\n")
    assert not cluster.plane.workloads
    assert atoll("apply", "-f", "web.yaml", "--no-wait").code == 0
    same = atoll("plan", "-f", "web.yaml")
    assert (same.code, same.out) == (0, "= workload/web unchanged\n")
    (home / "web.yaml").write_text(WORKLOAD % 3)
    more = atoll("plan", "-f", "web.yaml")
    assert more.code == 9
    assert "~ workload/web updated\n" in more.out
    assert "replicas: 2 → 3" in more.out
    assert "! quota: tenant default would ask for cpu 200m more than it has; some replicas would wait" in more.out
    document = json.loads(atoll("plan", "-f", "web.yaml", "-o", "json").out)
    assert [change["outcome"] for change in document["plan"]] == ["updated"]
    assert len(document["notes"]) == 1
    (home / "web.yaml").write_text((WORKLOAD % 2).replace("spec: {", "spec: {migratable: false, "))
    assert "spec.migratable: nothing → false\n" in atoll("plan", "-f", "web.yaml").out


def test_a_plan_says_what_no_known_node_could_hold(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    """The server refuses it once all regions have told."""
    node = objects_pb2.Resources(cpu_milli=4_000, memory_mib=8_192, gpu_milli=2_000)
    models = [objects_pb2.GpuModel(model="T4", most=2)]
    cluster.plane.summaries["r1"] = objects_pb2.RegionSummary(largest_node=node, gpu_models=models)
    (home / "tenant.yaml").write_text(TENANT)
    assert atoll("apply", "-f", "tenant.yaml").code == 0

    def notes(task: str, cpu: str = "1m") -> list[str]:
        requests = f"resources: {{requests: {{cpu: {cpu}, memory: 1Mi, gpu: 1}}}}"
        head = "apiVersion: atoll/v1\nkind: Workload\nmetadata: {name: web}\n"
        (home / "web.yaml").write_text(head + f"spec: {{task: {{name: main, command: [x], {task}{requests}}}}}\n")
        told = json.loads(atoll("plan", "-f", "web.yaml", "-o", "json").out)["notes"]
        return [note for note in told if note.startswith("room")]

    assert notes("gpuModels: [A100, T4], ") == []
    unlike = "room: no node of r1 has a GPU of A100 or H100 for a replica of web/main; it would wait"
    assert notes("gpuModels: [A100, H100], ") == [unlike]
    (larger,) = notes("gpuModels: [A100], ", cpu="5")
    assert larger.startswith("room: no node of r1 is as large as a replica of web/main (")


def test_a_plan_tells_the_mistakes_of_all_documents(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    documents = [(WORKLOAD % 2).replace("name: web", f"name: {name}") for name in ("Web", "there", "Api")]
    (home / "all.yaml").write_text("---\n".join(documents))
    refused = atoll("plan", "-f", "all.yaml")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("metadata.name: is not allowed") == 2


def test_top_counts_what_is_asked_for(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    (home / "all.yaml").write_text(TENANT + "---\n" + WORKLOAD % 2)
    assert atoll("apply", "-f", "all.yaml", "--no-wait").code == 0
    result = atoll("top", "tenants")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()[:2]] == [
        ["TENANTS", "RESOURCE", "USED", "ASKED", "OF", "FULL"],
        ["default", "cpu", "0", "800m", "1", "0", "%"],
    ]
    (row,) = json.loads(atoll("top", "tenants", "-o", "json").out)["items"]
    assert row["asked"]["cpu"] == "800m"


def test_status_and_whoami_and_contexts_as_json(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    status = json.loads(atoll("status", "-o", "json").out)
    assert [region["metadata"]["name"] for region in status["regions"]] == ["r1"]
    assert json.loads(atoll("auth", "whoami", "-o", "json").out)["name"] == "root"
    (context,) = json.loads(atoll("context", "list", "-o", "json").out)["items"]
    assert context["current"] is True
    assert "token" not in context


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("status", ["workload/web"]),
        ("top tenants", ["tenant/default"]),
        ("quota get default", ["tenant/default"]),
        ("queue list", ["shop/high"]),
        ("why web", ["slot/web/0"]),
        ("plan -f all.yaml", ["tenant/default", "workload/web"]),
        ("context list", ["context/test"]),
        ("auth whoami", ["user/root"]),
        ("version", ["atoll", "python", "etcd"]),
    ],
)
def test_what_is_no_document_is_shown_in_every_format(
    atoll: Run, cluster: FakeCluster, home: Path, command: str, names: list[str]
) -> None:
    (home / "all.yaml").write_text(TENANT + "---\n" + WORKLOAD % 1)
    cluster.plane.placing = False
    assert atoll("apply", "-f", "all.yaml", "--no-wait").code == 0
    cluster.region.queue.queues.add(tenant="shop", priority=objects_pb2.PRIORITY_HIGH)
    cluster.region.why.slots.add(id=objects_pb2.SlotId(workload="web", task="main"))
    assert atoll(*command.split(), "-o", "name").out.splitlines() == names
    document = json.loads(atoll(*command.split(), "-o", "json").out)
    documents = document.get("items", [document])
    assert list(yaml.safe_load_all(atoll(*command.split(), "-o", "yaml").out)) == documents
    assert [json.loads(line) for line in atoll(*command.split(), "-o", "jsonl").out.splitlines()] == documents
    assert atoll(*command.split(), "-o", "wide").out


def test_a_schedule_is_as_it_should_be_and_asks_for_nothing_itself(
    atoll: Run, cluster: FakeCluster, home: Path
) -> None:
    nightly = WORKLOAD.replace("web", "nightly").replace("{task", "{type: job, schedule: '@daily', task") % 1
    (home / "all.yaml").write_text(TENANT + "---\n" + nightly)
    assert atoll("apply", "-f", "all.yaml", "--no-wait").code == 0
    assert "1 workload, 1 as they should be" in atoll("status").out
    (row,) = json.loads(atoll("top", "tenants", "-o", "json").out)["items"]
    assert row["asked"] == {}


def test_what_is_asked_for_is_what_may_still_use_quota(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    (home / "tenant.yaml").write_text(TENANT)
    (home / "sums.yaml").write_text((WORKLOAD % 5).replace("{task: {", "{type: job, task: {name: main, "))
    assert atoll("apply", "-f", "tenant.yaml").code == 0
    assert atoll("apply", "-f", "sums.yaml", "--no-wait").code == 0
    (job,) = cluster.plane.workloads.values()

    def asked() -> str:
        (row,) = json.loads(atoll("top", "tenants", "-o", "json").out)["items"]
        return str(row["asked"].get("cpu"))

    assert asked() == "2"
    assert "! quota: tenant default would ask for cpu 1 more" in atoll("plan", "-f", "sums.yaml").out
    job.status.job.generation = job.metadata.generation
    task = job.status.job.tasks.add(task="main", phase=objects_pb2.TASK_PHASE_RUNNING, succeeded=2, failed=1)
    assert asked() == "800m"
    assert atoll("plan", "-f", "sums.yaml").out == "= workload/web unchanged\n"
    task.phase = objects_pb2.TASK_PHASE_FAILED
    assert asked() == "None", "the rest is stopped"
    job.metadata.generation += 1
    job.spec.tasks[0].parallelism = 3
    assert asked() == "1200m", "three at once, of another generation"


def test_a_plan_tells_of_containers_that_would_be_processes() -> None:
    planned = [("Workload", name, "updated", [f"spec.tasks[0].{TO_PROCESS}"]) for name in ("api", "web")]
    (note,) = _driver_notes([*planned, ("Workload", "old", "unchanged", [])])
    assert note.startswith("driver: api, web run as containers and would run as processes")


def test_status_of_one_tenant(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    (home / "all.yaml").write_text(TENANT + "---\n" + WORKLOAD % 1)
    assert atoll("apply", "-f", "all.yaml", "--no-wait").code == 0
    assert atoll("tenant", "create", "shop", "--cpu", "1").code == 0
    assert "1 workload, 1 as they should be" in atoll("status").out
    shop = atoll("status", "-t", "shop").out
    assert "no workloads" in shop and "shop" in shop and "default" not in shop


def test_quota_get_and_a_quota_that_is_only_tried(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    assert atoll("tenant", "create", "shop", "--cpu", "2").code == 0
    assert "(dry run)" in atoll("quota", "set", "shop", "--cpu", "4", "--dry-run").out
    assert json.loads(atoll("quota", "get", "shop", "-o", "json").out)["quota"] == {"cpu": "2"}


def test_regions_are_listed_and_named(atoll: Run, cluster: FakeCluster, home: Path) -> None:
    assert atoll("region", "list", "-o", "name").out == "region/r1\n"
    assert atoll("region", "get", "nowhere").code == 1
    assert atoll("region", "cordon", "r1").out == "region/r1 cordoned\n"
    assert atoll("region", "uncordon", "r1").out == "region/r1 takes work\n"
    assert json.loads(atoll("region", "drain", "r1", "-o", "json").out)["kind"] == "Region"


def test_completion_is_for_this_program(atoll: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_ATOLL_COMPLETE" in atoll("completion", shell).out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["reg"], ["region"]),
        (["node", "dr"], ["drain"]),
        (["node", "token", ""], ["create", "list", "revoke"]),
        (["get", "no"], ["nodes"]),
        (["apply", "--dry"], ["--dry-run"]),
        (["get", "nodes", "-o", "j"], ["json", "jsonl"]),
    ],
)
def test_a_real_bash_completes(home: Path, typed: list[str], offered: list[str]) -> None:
    """The script is sourced and its function called as bash calls it, with the words up to the cursor."""
    program = (
        'source <(atoll completion bash); COMP_WORDS=(atoll "$@"); COMP_CWORD=$#\n'
        "function=$(complete -p atoll | sed -E 's/.*-F ([^ ]+).*/\\1/')\n"
        '"$function" atoll; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "bash", *typed], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == offered


@pytest.mark.parametrize(
    ("mib", "text"),
    [
        (512, "512Mi"),
        (10_240, "10Gi"),
        (15_872, "15.5Gi"),
        (104_857_600, "100Ti"),
        (4_096, "4Gi"),
        (4 << 20, "4Ti"),
        (0, "0"),
    ],
)
def test_amounts_are_short(mib: int, text: str) -> None:
    assert rounded(mib, "memory_mib") == text


def test_of_nothing_it_is_said_that_there_is_nothing(atoll: Run, cluster: FakeCluster) -> None:
    for arguments, word in ((("tenant", "list"), "tenants"), (("get", "workloads"), "workloads")):
        empty = atoll(*arguments)
        assert (empty.code, empty.out, empty.err) == (0, "", f"no {word}\n")
    assert json.loads(atoll("tenant", "list", "-o", "json").out)["items"] == []
