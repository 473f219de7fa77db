"""Commands against an in-memory cluster: what they print where, and their exit codes."""

import asyncio
import contextlib
import gc
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc.aio
import pytest

from atoll import audit, errors, manifest
from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.cli import events, listing, verify, views
from atoll.cli.main import main
from atoll.cli.output import View, visible
from atoll.cli.progress_line import ProgressLine
from atoll.sdk.progress import Progress
from tests.support.fake_global import FakeCluster
from tests.unit.atoll.cli.conftest import Run

RUN = ("run", "hello", "--replicas", "3", "--", "sleep", "9")
MANIFEST = "apiVersion: atoll/v1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{task: {{command: [x]}}}}\n"


class TestApply:
    def test_waits_and_keeps_data_and_progress_apart(self, atoll: Run, cluster: FakeCluster, home: Path) -> None:
        (home / "a.yaml").write_text(MANIFEST.format(name="hello"))
        result = atoll("apply", "-f", "a.yaml")
        assert (result.code, result.out) == (0, "workload/hello created\n")
        assert "admitted → queued → bound 1/1 → started → ready 1/1 → serving 1/1 (" in result.err
        assert atoll("apply", "-f", "a.yaml", "--no-wait").out == "workload/hello unchanged\n"

    def test_tenants_go_first_and_a_dry_run_changes_nothing(self, atoll: Run, cluster: FakeCluster, home: Path) -> None:
        tenant = "apiVersion: atoll/v1\nkind: Tenant\nmetadata: {name: shop}\nspec: {quota: {cpu: 1}}\n"
        (home / "all.yaml").write_text(MANIFEST.format(name="a") + "---\n" + tenant)
        assert atoll("apply", "-f", "all.yaml", "--dry-run").code == 0
        assert not cluster.plane.workloads
        assert not cluster.plane.tenants
        assert atoll("apply", "-f", "all.yaml").out == "tenant/shop created\nworkload/a created\n"

    def test_a_servers_mistake_has_its_line(self, atoll: Run, cluster: FakeCluster, home: Path) -> None:
        (home / "a.yaml").write_text(MANIFEST.format(name="HELLO"))
        result = atoll("apply", "-f", "a.yaml")
        assert result.code == 2
        assert "a.yaml:3:18: metadata.name: is not allowed" in result.err

    def test_a_servers_mistake_in_any_document_stops_all(self, atoll: Run, cluster: FakeCluster, home: Path) -> None:
        (home / "a.yaml").write_text("---\n".join(MANIFEST.format(name=name) for name in ("good", "BAD", "WORSE")))
        result = atoll("apply", "-f", "a.yaml")
        assert (result.code, result.out) == (2, "")
        assert "a.yaml:8:18: metadata.name" in result.err
        assert "a.yaml:13:18: metadata.name" in result.err
        assert not cluster.plane.workloads

    def test_a_full_queue_says_when_to_come_again(self, atoll: Run, cluster: FakeCluster) -> None:
        cluster.plane.full_ms = 90_000  # longer than a command waits
        result = atoll(*RUN, "--no-wait")
        assert (result.code, result.out) == (6, "")
        assert result.err.startswith("Error E5012: too many replicas wait in r1\nCome again in 90s\n")

    def test_a_folder_without_manifests_is_a_mistake(self, atoll: Run, cluster: FakeCluster, home: Path) -> None:
        (home / "empty").mkdir()
        result = atoll("apply", "-f", "empty")
        assert result.code == 2
        assert "Error E1001: empty holds no file named *.yaml" in result.err

    def test_what_was_printed_can_be_applied(self, atoll: Run, cluster: FakeCluster, home: Path) -> None:
        atoll(*RUN)
        for style in ("yaml", "json"):
            (home / "again").write_text(atoll("get", "workload", "hello", "-o", style).out)
            assert atoll("apply", "-f", "again").out == "workload/hello unchanged\n"

    def test_an_image_without_a_command(self, atoll: Run, cluster: FakeCluster) -> None:
        done = atoll("run", "box", "--image", "some/image:1", "--port", "8080", "--http", "9090/well", "-o", "json")
        assert done.code == 0
        (task,) = json.loads(done.out)["spec"]["tasks"]
        assert (task["image"], task.get("command")) == ("some/image:1", None)
        assert [port["number"] for port in task["ports"]] == [8080, 9090]
        assert atoll("run", "box", "--image", "some/image:1", "--port", "0").code == 2


class TestExitCodes:
    def test_not_placed_in_time(self, atoll: Run, cluster: FakeCluster) -> None:
        cluster.plane.placing = False
        result = atoll(*RUN[:4], "--timeout", "0.2", *RUN[4:])
        assert result.code == 3
        assert "Error E2103: 3 of 3 replicas of hello are not placed" in result.err
        assert "Try   atoll why hello" in result.err

    def test_conflict(self, atoll: Run, cluster: FakeCluster) -> None:
        assert atoll(*RUN[:2], "--request-id", "r1", *RUN[2:]).code == 0
        assert atoll("run", "other", "--request-id", "r1", "--", "x").code == 4

    def test_not_allowed(self, atoll: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATOLL_TOKEN", "atoll-user.0123456789abcdef.forged")
        assert atoll("get", "workloads").code == 5

    def test_unreachable(self, atoll: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATOLL_ADDRESS", "127.0.0.1:1")
        assert atoll("logs", "hello").code == 6

    def test_not_found(self, atoll: Run, cluster: FakeCluster) -> None:
        assert atoll("get", "workload", "nobody").code == 1
        assert atoll("wait", "nobody", "--for", "deleted").code == 0

    def test_an_error_does_not_keep_the_channel(self, cluster: FakeCluster) -> None:
        """gRPC would wait two seconds for it when the interpreter ends."""
        with pytest.raises(SystemExit) as end:
            main(["get", "workload", "nobody"])
        gc.collect()
        assert end.value.__context__ is not None
        assert not [it for it in gc.get_objects() if isinstance(it, grpc.aio.Channel)]


async def _changes(view: View[Any], before: list[Any], *looks: list[Any]) -> list[tuple[str, bool]]:
    """The regions of what a watch tells, and whether it is gone."""
    found = []
    with contextlib.suppress(LookupError):
        coming = iter(looks)

        async def look() -> list[Any]:
            if (found_now := next(coming, None)) is None:
                raise LookupError
            return found_now

        async for item, gone in listing._look_again(look, view, before):
            found.append((item.region, gone))
    return found


class TestShowing:
    def test_every_format(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll(*RUN)
        assert atoll("get", "workloads").out.startswith("NAME   READY  STATE    AGE\nhello  3/3    serving")
        assert "TENANT" in atoll("get", "workloads", "-o", "wide").out
        assert atoll("list", "workloads", "-o", "name").out == "workload/hello\n"
        assert json.loads(atoll("get", "workloads", "-o", "json").out)["items"][0]["kind"] == "Workload"
        assert json.loads(atoll("get", "workload", "hello", "-o", "jsonl").out)["metadata"]["name"] == "hello"
        (document,) = manifest.parse(atoll("get", "workload", "hello", "-o", "yaml").out)
        assert document.message.metadata.name == "hello"  # type: ignore[attr-defined]
        assert atoll("get", "regions").code == 0
        assert atoll("status").out.startswith("cluster test at 127.0.0.1:")

    def test_hostile_names_cannot_move_the_cursor(self, atoll: Run, cluster: FakeCluster) -> None:
        out = atoll("get", "slots", "hello").out
        assert "n\\x1b[2J1" in out
        assert "\x1b" not in out

    def test_slots_of_every_tenant(self, atoll: Run, cluster: FakeCluster) -> None:
        assert atoll("get", "slots").out.split()[0] == "NAME"
        assert cluster.region.slots_asked.tenant == "default"
        out = atoll("get", "slots", "-A").out
        assert cluster.region.slots_asked.tenant == ""
        assert out.split()[:4] == ["TENANT", "NAME", "STATE", "REGION"] and "default  hello/0" in out

    def test_slots_of_regions_that_answer_and_which_one_does_not(self, atoll: Run, cluster: FakeCluster) -> None:
        cluster.plane.regions, cluster.plane.away = ["r1", "r2"], {"r2"}
        listed = atoll("get", "slots", "hello")
        assert cluster.region.slots_asked.region == "r1" and "hello/2" in listed.out
        assert listed.err == "region r2 cannot be asked: what it has is not shown\n"

    async def test_a_region_that_fell_silent_a_moment_ago_hides_no_other(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        asked = []
        everyone = asyncio.Event()

        async def regions() -> list[objects_pb2.Region]:
            names = ("r1", "r2", "r3")
            return [objects_pb2.Region(metadata=objects_pb2.Metadata(name=name), connected=True) for name in names]

        async def ask(region: str, within_s: float) -> list[str]:
            asked.append(region)
            assert within_s == listing.SILENT_S
            if len(asked) == 3:
                everyone.set()
            await everyone.wait()  # all are asked at once
            if region == "r2":
                raise errors.Unavailable("no answer")
            return [f"of {region}"]

        client: Any = SimpleNamespace(regions=SimpleNamespace(list=regions))
        assert await listing.of_regions(client, "", ask) == ["of r1", "of r3"]
        assert asked == ["r1", "r2", "r3"] and "region r2 cannot be asked" in capsys.readouterr().err

    def test_events_of_regions_that_answer_and_which_one_is_silent(
        self, atoll: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events, "SILENT_S", 0.5)
        cluster.plane.regions, cluster.region.mute = ["r1", "r2", "r3"], "r1"
        shown = atoll("events", "-o", "name")
        assert (shown.code, shown.out) == (0, "of r2\nof r3\n")
        assert shown.err == "region r1 cannot be asked: what it has is not shown\n"
        assert set(cluster.region.events_asked) == {"r1", "r2", "r3"}

    def test_status_says_which_region_cannot_be_asked(self, atoll: Run, cluster: FakeCluster) -> None:
        cluster.plane.regions, cluster.plane.away = ["r1", "r2"], {"r2"}
        shown = atoll("status")
        assert "active,unreachable" in shown.out and "region r2 cannot be asked" in shown.err

    async def test_a_watch_tells_slots_of_one_name_apart_and_no_heartbeats(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listing, "LOOK_AGAIN_S", 0.0)
        slot = objects_pb2.Slot(id=objects_pb2.SlotId(workload="hello", task="main"))
        east, west = (regional_pb2.SlotView(slot=slot, region=region) for region in ("east", "west"))
        moved = regional_pb2.SlotView(slot=objects_pb2.Slot(id=slot.id, node="n2"), region="west")
        assert await _changes(views.SLOTS, [east, west], [east, west], [east, moved], [moved]) == [
            ("west", False),
            ("east", True),
        ]
        nodes = [[objects_pb2.Node(region="east", heartbeat_age_ms=age)] for age in (1, 2, 3)]
        assert await _changes(views.NODES, *nodes, []) == [("east", True)]

    def test_join_tokens_of_every_region_and_which_one_could_not_be_asked(
        self, atoll: Run, cluster: FakeCluster
    ) -> None:
        for region in ("r1", "r2"):
            cluster.region.tokens.tokens.add(id=f"of-{region}", region=region, pool="default")
        cluster.region.tokens.unreachable.append("r3")
        listed = atoll("node", "token", "list")
        assert [line.split()[:2] for line in listed.out.splitlines()[1:]] == [["of-r1", "r1"], ["of-r2", "r2"]]
        assert listed.err == "region r3 cannot be asked: what it has is not shown\n"

    def test_why_unplaced_and_placed(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll("run", "hello", "--no-wait", "--", "true")
        slot = objects_pb2.SlotId(tenant="default", workload="hello", task="main", index=0)
        lacking = objects_pb2.PendingReason(code="InsufficientMemory", nodes=96, message="lack memory")
        score = objects_pb2.NodeScore(node="n1", total=0.5, terms=[objects_pb2.ScoreTerm(name="spread", value=1)])
        decision = objects_pb2.Decision(id="7-1", result="Bound", nodes=118, feasible=22, scores=[score], avoided="n2")
        cluster.region.why.slots.add(id=slot, waiting_ms=42_000, reasons=[lacking], queue_position=3)
        cluster.region.why.slots.add(
            id=slot,
            state=objects_pb2.SLOT_STATE_BOUND,
            node="n1",
            decision=decision,
            on_node=[lacking],
            next=regional_pb2.NextAct(actor="nobody", what="it serves"),
        )
        assert "\n  node n7: 96 nodes lack memory (InsufficientMemory)\n" in atoll("why", "hello", "--node", "n7").out
        out = atoll("why", "hello").out
        assert "hello/0  waiting for 42s, 3. in the queue\n  96 nodes lack memory (InsufficientMemory)\n" in out
        assert "hello/0  bound on n1\n" in out
        assert out.count("who acts next") == 1 and "\n  who acts next: nobody: it serves\n" in out
        assert "; 22 of 118 nodes could take it, n2 left out: it failed there; policy" in out
        assert len(json.loads(atoll("why", "hello", "-o", "json").out)["items"]) == 2

    def test_why_tells_alike_replicas_together(self, atoll: Run, cluster: FakeCluster) -> None:
        for index, node in enumerate(("n1", "n1", "n2", "n1")):
            slot = objects_pb2.SlotId(tenant="default", workload="hello", task="worker", index=index)
            decision = objects_pb2.Decision(id="7-1", result="Bound", nodes=2, feasible=2)
            cluster.region.why.slots.add(id=slot, state=objects_pb2.SLOT_STATE_BOUND, node=node, decision=decision)
        atoll("run", "hello", "--no-wait", "--", "true")
        first, decided, second, again = atoll("why", "hello").out.splitlines()
        assert (first, second) == ("hello/worker/0-1,3  bound on n1", "hello/worker/2  bound on n2")
        assert "2 of 2 nodes could take it" in decided and again == "  decision 7-1: as above"

    def test_why_of_a_task_that_is_not_open_yet(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll("run", "load", "--job", "--not-before", "now+1h", "--no-wait", "--", "true")
        job = cluster.plane.workloads["default", "load"]
        status = job.status.job.tasks.add(task="main", phase=objects_pb2.TASK_PHASE_PENDING)
        status.reason, status.message = "NotYet", "waits for its notBefore"
        told = atoll("why", "load").out
        assert told.startswith("load/main in no region\n  waits for its notBefore, 20") and "(NotYet)\n" in told
        assert "the global plane: opens it" in told
        status.phase, status.reason, status.message = objects_pb2.TASK_PHASE_STOPPED, "DeadlineExceeded", "too long"
        assert atoll("why", "load").out == (
            "load/main in no region\n  too long (DeadlineExceeded)\n"
            "  who acts next: nobody: it was stopped; what has failed may be resumed\n"
        )

    def test_why_of_what_is_in_no_region(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll("run", "hello", "--no-wait", "--", "true")
        acts = "  who acts next: the global plane: gives it to a region when one may run it\n"
        assert atoll("why", "hello").out == "hello in no region\n" + acts
        atoll("run", "none", "--replicas", "0", "--no-wait", "--", "true")
        assert atoll("why", "none").out.endswith("  who acts next: nobody: it asks for no replicas\n")

    def test_logs_come_as_they_were_written(self, atoll: Run, cluster: FakeCluster) -> None:
        assert atoll("logs", "hello/0").out == "one\ntwo\n"


def test_tenants_and_quotas(atoll: Run, cluster: FakeCluster) -> None:
    assert atoll("tenant", "create", "shop", "--cpu", "2", "--memory", "1Gi").out == "tenant/shop created\n"
    assert atoll("quota", "set", "shop", "--cpu", "4").out == "tenant/shop updated\n"
    assert "cpu 4, memory 1Gi" in atoll("tenant", "list").out
    assert atoll("quota", "set", "shop", "--weight", "3").out == "tenant/shop updated\n"
    assert cluster.plane.tenants["shop"].spec.weight == 3
    assert atoll("quota", "set", "shop", "--disk", "1Gi").code == 0
    assert cluster.plane.tenants["shop"].spec.weight == 3, "what is not given stays"
    assert atoll("quota", "set", "shop", "--weight", "0").code == 2
    assert atoll("quota", "protect", "shop", "r1", "--cpu", "1").out == "tenant/shop updated\n"
    assert "protected in r1" in atoll("quota", "get", "shop").out
    told = json.loads(atoll("quota", "get", "shop", "-o", "json").out)
    assert set(told["protected"]) == {"r1"} and "burstEffective" in told
    assert atoll("quota", "get", "-t", "shop").out == atoll("quota", "get", "shop").out
    assert "r1 cpu 1" in atoll("tenant", "get", "shop").out
    assert atoll("quota", "protect", "shop", "r1", "--cpu", "0").out == "tenant/shop updated\n"
    assert "protected" not in atoll("quota", "get", "shop").out
    assert atoll("tenant", "get", "shop", "-o", "name").out == "tenant/shop\n"
    refused = atoll("quota", "set", "shop", "--memory", "512")
    assert refused.code == 2
    assert "--memory: '512' has no unit" in refused.err
    assert atoll("tenant", "delete", "shop").code == 2
    assert atoll("tenant", "delete", "shop", "--yes").out == "tenant/shop deleted\n"
    assert atoll("tenant", "get", "shop").code == 1


class TestDelete:
    def test_asks_and_needs_somebody_to_ask(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll(*RUN)
        result = atoll("delete", "hello")
        assert result.code == 2
        assert "hello: 3 running replicas" in result.err
        assert cluster.plane.workloads
        assert atoll("delete", "hello", "--yes").out == "workload/hello deleting\n"
        assert not cluster.plane.workloads

    def test_tells_how_many_ran_until_they_are_gone(self, capsys: pytest.CaptureFixture[str]) -> None:
        with ProgressLine("hello", leaves=True) as line:
            for started in (3, 0):  # the status of the generation that deletes counts nothing yet
                line.update(Progress(1, (), 3, started, started, started, started, 0, 0))
        assert "hello: 3 running → gone (" in capsys.readouterr().err

    def test_scale(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll(*RUN)
        assert atoll("scale", "hello", "5").out == "workload/hello updated\n"
        assert "5/5" in atoll("get", "workload", "hello").out


class TestAdvice:
    """What comes after `Try` can be typed as it stands."""

    def test_names_the_tenant_where_it_is_not_the_contexts(self, atoll: Run, cluster: FakeCluster) -> None:
        cluster.plane.placing = False
        short = ("run", "hello", "--timeout", "0.2", "--", "x")
        assert atoll(*short).err.endswith("Try   atoll why hello\n")
        assert atoll(short[0], "-t", "shop", *short[1:]).err.endswith("Try   atoll why hello -t shop\n")
        cluster.plane.workloads.pop(("default", "hello"))
        status = atoll("status")
        assert status.err == "Try   atoll why hello -t shop\n"
        assert "\n1 workload, 0 as they should be\nTENANT  NAME   READY" in status.out
        assert atoll("get", "workloads", "--all-tenants").out.startswith("TENANT  NAME   READY")

    def test_a_replica_with_a_node_is_looked_at_there(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll("run", "load", "--job", "--", "x")
        late = atoll("wait", "load", "--for", "done", "--timeout", "0.2")
        assert late.code == 3
        assert late.err.endswith("Try   atoll get slots load -o wide\n")

    def test_what_never_ends_is_not_waited_for(self, atoll: Run, cluster: FakeCluster) -> None:
        atoll("run", "hello", "-t", "shop", "--no-wait", "--", "x")
        service = atoll("wait", "hello", "-t", "shop", "--for", "done", "--timeout", "1h")
        assert service.code == 2
        assert service.err.startswith("Error E1001: hello is a service: it never ends, so it is never done\n")
        assert service.err.endswith("Try   atoll wait hello --for serving -t shop\n")
        atoll("run", "load", "--job", "--schedule", "0 3 * * *", "--no-wait", "--", "x")
        job = atoll("wait", "load", "--for", "done", "--timeout", "1h")
        assert job.code == 2 and job.err.startswith("Error E1001: load has a schedule: each of its runs ends")
        assert job.err.endswith("Try   atoll job runs load\n")

    def test_an_unreachable_server(self, atoll: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ATOLL_ADDRESS", "127.0.0.1:1")
        assert "a token is for the port for people" in atoll("get", "workloads").err


def test_a_verdict_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = audit.Verdict(7, 1, 5, (), (("I3", 2),), ("I2 is not seen",))
    verify.show(verdict, "json")
    document = json.loads(capsys.readouterr().out)
    assert document["broken"] == [{"invariant": "I3", "times": 2}] and "I3" not in document["hold"]
    verify.show(verdict, "name")
    assert capsys.readouterr().out == "I3\n"
    verify.show(verdict)
    assert "I3 BROKEN 2 times" in capsys.readouterr().out


def test_verify_reads_the_store_of_the_context(atoll: Run, cluster: FakeCluster) -> None:
    unknown = atoll("verify")
    assert unknown.code == 2
    assert "atoll context set NAME --etcd HOST:PORT" in unknown.err
    assert atoll("context", "set", "test", "--etcd", "127.0.0.1:1").code == 0
    assert atoll("verify").code == 6


def test_login_keeps_nothing_but_a_token(atoll: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("nonsense\n"))
    assert atoll("auth", "login").code == 2
    assert atoll("auth", "whoami").code == 0


def test_visible_keeps_what_can_be_seen() -> None:
    assert visible("héllo 世界") == "héllo 世界"
    assert visible("a\nb\x1b\u202e") == "a\\x0ab\\x1b\\u202e"
    assert visible("a\nb", keep_lines=True) == "a\nb"
