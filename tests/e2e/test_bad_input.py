"""What users get wrong, as they type it and as programs send it: a clear word, a stable code, nothing half done.

Every case runs the real command line against a real cluster, whose store must be the same afterwards.
"""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection
from atoll.sdk.specs import Workload
from atoll.store.etcd import EtcdStore
from atoll.store.store import list_all
from tests.support.etcd import need_etcd

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]
ATOLL = [sys.executable, "-c", "from atoll.cli.main import main; main()"]
# Everything that users ask for, directly or not.
ASKED = ("/g/tenant/", "/g/workload/", "/g/token/", "/g/request/", "/g/share/", "/r/r1/workload/", "/r/r1/join/")
USERS = {  # name: role, tenant, seconds
    "ann": (objects_pb2.ROLE_USER, "default", 3_600),
    "sam": (objects_pb2.ROLE_USER, "small", 3_600),
    "vic": (objects_pb2.ROLE_VIEWER, "default", 3_600),
    "old": (objects_pb2.ROLE_USER, "default", 1),
}


@dataclass
class World:
    """A cluster with one node; the tenants `default` and `small` (1 cpu); the workload `there`."""

    cluster: DevCluster
    admin: Connection
    home: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def people(self) -> str:
        return next(program for program in self.cluster.programs if program.name == "global-1").ready["people"]

    @property
    def ca(self) -> str:
        return self.admin.ca

    def environment(self, who: str) -> dict[str, str]:
        """Of a command run by one of USERS, `admin`, or somebody with this text for a token."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
        mine |= {"ATOLL_CONFIG": str(self.home / "config.toml"), "PYTHONPATH": str(ROOT), "ATOLL_CA": self.ca}
        if who == "admin":
            it = self.admin
            return mine | {"ATOLL_ADDRESS": it.address, "ATOLL_CERTIFICATE": it.certificate, "ATOLL_KEY": it.key}
        return mine | {"ATOLL_ADDRESS": self.people, "ATOLL_TOKEN": self.tokens.get(who, who)}

    def asked(self) -> dict[str, int]:
        """What users have asked for so far, with the revision of each."""

        async def look() -> dict[str, int]:
            store = await EtcdStore.connect(self.cluster.etcd)
            try:
                records = (await list_all(store, b"/")).items
            finally:
                await store.close()
            found = {record.key.decode(): record.mod_revision for record in records}
            return {key: revision for key, revision in found.items() if key.startswith(ASKED)}

        return asyncio.run(look())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need_etcd()
    home = tmp_path_factory.mktemp("bad-input")
    cluster = DevCluster(home / "cluster")
    CertificateAuthority.create(home / "stranger", "dev", SystemClock().now_ms())
    (home / "work").mkdir()
    try:
        playground.start(cluster, agents=1)
        started = World(cluster, cluster.connection, home)
        playground.connected(started.admin, lambda client: furnish(client, started))
        yield started
    finally:
        cluster.stop()


async def furnish(client: AsyncClient, world: World) -> None:
    small = objects_pb2.Tenant(metadata=objects_pb2.Metadata(name="small"))
    small.spec.quota.CopyFrom(objects_pb2.Resources(cpu_milli=1_000, memory_mib=1_024))
    await client.tenants.apply(small)
    for name, (role, tenant, ttl_s) in USERS.items():
        world.tokens[name] = (await client.tokens.create_user(name, role, tenant=tenant, ttl_s=ttl_s)).token
    spec = Workload(name="there", command=("sleep", "1000"), cpu="10m", memory="16Mi")
    await client.workloads.wait(await client.workloads.apply(spec, request_id="first"))


def manifest(name: str = "new", *, tenant: str = "", spec: str = "", cpu: str = "10m", memory: str = "16Mi") -> str:
    return f"""\
apiVersion: atoll/v1
kind: Workload
metadata: {{name: {name}, tenant: {tenant or "default"}}}
spec:
  {spec or "replicas: 1"}
  task:
    command: [sleep, '1000']
    resources: {{cpu: {cpu}, memory: {memory}}}
"""


TWO_TASKS = """\
apiVersion: atoll/v1
kind: Workload
metadata: {name: new}
spec:
  tasks:
  - {name: a, command: [x], resources: {cpu: 1m, memory: 1Mi}}
  - {name: a, command: [x], resources: {cpu: 1m, memory: 1Mi}}
"""
SECOND = manifest() + "---\n"

# What is said, and a.yaml; exit code 2, E1001.
MANIFESTS: dict[str, tuple[str, str | bytes]] = {
    "unknown field": (
        'a.yaml:5:3: spec.replicaz: unknown field, did you mean "replicas"?',
        manifest(spec="replicaz: 1"),
    ),
    "wrong unit": ("'10Mi': unknown unit 'Mi'; write for example 500m or 1.5", manifest(cpu="10Mi")),
    "no unit": (
        "a.yaml:8:35: spec.task.resources.memory: '512' has no unit; did you mean 512Mi?",
        manifest(memory="512"),
    ),
    "negative quantity": ("'-1' is not a quantity", manifest(cpu="-1")),
    "overflowing quantity": ("is larger than any cluster", manifest(memory="99999999999999999999Ti")),
    "overflowing number": ("is out of range", manifest(spec="replicas: 9999999999")),
    "larger than any node": ("no node could ever hold this; the most is cpu", manifest(memory="100Ti")),
    "GPUs of a model that no node has": (
        "gpuModels: a GPU of H100: no node could ever hold this; no node has GPUs",
        manifest(cpu="10m, gpu: 1").replace("    command:", "    gpuModels: [H100]\n    command:"),
    ),
    "larger than any replica": ("2000000000 is not allowed: 0 to 1000000", manifest(cpu="2000000000")),
    "10,001 replicas": ("10001 is not allowed: 0 to 10000", manifest(spec="replicas: 10001")),
    "negative replicas": ("-1 is not allowed: 0 to 10000", manifest(spec="replicas: -1")),
    "duplicate task names": ("spec.tasks[1].name: 'a' is there twice", TWO_TASKS),
    "slash in a name": ("a.yaml:3:18: metadata.name: 'a/b' is not allowed: lower-case letters", manifest("a/b")),
    "dots for a name": ("'..' is not allowed", manifest("'..'")),
    "NUL in a name": (r"'a\x00b' is not allowed", manifest(r'"a\0b"')),
    "space in a name": ("'a b' is not allowed", manifest("'a b'")),
    "newline in a name": (r"'new\n' is not allowed", manifest(r'"new\n"')),
    "letter that looks alike": ("('\u0430' is U+0430)", manifest("\u0430pple")),
    "10 KiB for a name": (f"'{'x' * 40}…' is not allowed", manifest("x" * 10_240)),
    "10 KiB for a quantity": (f"'{'x' * 40}…' is not a quantity", manifest(cpu="x" * 10_240)),
    "10 KiB for a tenant": (f"'{'x' * 40}…' is not allowed", manifest(tenant="x" * 10_240)),
    "empty name": ("metadata.name: is missing", manifest("''")),
    "half a character": ("half of a surrogate pair", manifest(r'"\uD800"')),
    "unknown tenant": ("there is no tenant 'mars'", manifest(tenant="mars")),
    "unknown region": ("region 'mars' is not known; known are: r1", manifest(spec="regions: [mars]")),
    "binary garbage": ("a.yaml: is not UTF-8 text (byte 128)", bytes(range(256))),
    "control characters": ("not YAML", bytes(range(32))),
    "broken YAML": ("a.yaml:1:", "a: [b"),
    "nesting": ("more than 64 levels deep", "[" * 10_000),
    "empty file": ("a.yaml: holds no document", ""),
    "empty documents": ("a.yaml: holds no document", "---\n---\n"),
    "bad second document": ("a.yaml:14:3: spec.replicaz", SECOND + manifest("other", spec="replicaz: 1")),
    "second one that the server refuses": (
        "a.yaml:17:17: spec.tasks[0].resources.requests",
        SECOND + manifest("other", memory="100Ti"),
    ),
}

APPLY = ("apply", "-f", "a.yaml")
RUN = ("run", "new", "--cpu", "10m", "--memory", "16Mi")
LIST = ("get", "workloads")
JOIN = ("node", "token", "create")
NO_SUCH_TOKEN = f"atoll-user.{'0' * 16}.{'x' * 43}"


@dataclass(frozen=True)
class Case:
    exit: int
    code: str  # empty where click tells how the command is used
    says: str
    arguments: tuple[str, ...]
    who: str = "ann"
    text: str | bytes | None = None  # of a.yaml
    environment: Mapping[str, str] = field(default_factory=dict)


CASES = {
    "missing file": Case(2, "E1001", "a.yaml cannot be read: No such file or directory", APPLY),
    "folder without manifests": Case(2, "E1001", "holds no file named *.yaml", ("apply", "-f", ".")),
    "name with slash": Case(2, "E1001", "'a/b' is not allowed", ("run", "a/b", "--", "x")),
    "too many replicas": Case(2, "", "10001 is not in the range", (*RUN, "--replicas", "10001", "--", "x")),
    "negative cpu": Case(2, "E1001", "'-1' is not a quantity", ("run", "new", "--cpu", "-1", "--", "x")),
    "a thousand cpus": Case(2, "E1001", "no node could ever hold this", ("run", "new", "--cpu", "999", "--", "x")),
    "nothing to run": Case(2, "E1001", "command: is missing", ("run", "new")),
    "reserved variable": Case(2, "E1001", "ATOLL_ is set by the agent", (*RUN, "--env", "ATOLL_X=1", "--", "x")),
    "another body": Case(4, "E3003", "'first' was used for another change", (*RUN, "--request-id", "first", "--", "x")),
    "bad request id": Case(2, "E1001", "requestId: 'a/b' is not allowed", (*RUN, "--request-id", "a/b", "--", "x")),
    "scale what is not": Case(1, "E1004", "tenant 'default' has no workload 'nope'", ("scale", "nope", "3")),
    "scale beyond": Case(2, "", "10001 is not in the range", ("scale", "there", "10001")),
    "scale an unknown task": Case(2, "E1001", "must be one of: main", ("scale", "there", "3", "--task", "nope")),
    "delete a path": Case(1, "E1004", "has no workload '../x'", ("delete", "../x", "--yes")),
    "delete, not asked": Case(2, "", "nobody is here to ask; say --yes", ("delete", "there")),
    "escape to the terminal": Case(1, "E1004", r"'a\x1b[2Jb'", ("get", "workload", "a\x1b[2Jb")),
    "misspelt command": Case(2, "", "no such command 'aply', did you mean 'apply'?", ("aply",)),
    "bad duration": Case(2, "", "'5 apples' is not a duration", ("wait", "there", "--timeout", "5 apples")),
    # who may not
    "another's workload": Case(5, "E4003", "may not act for tenant 'small'", APPLY, text=manifest(tenant="small")),
    "delete another's": Case(5, "E4003", "may not act for tenant 'small'", ("delete", "x", "-t", "small", "--yes")),
    "another's logs": Case(5, "E4003", "may not act for tenant 'small'", ("logs", "there/0", "-t", "small")),
    "viewer applies": Case(5, "E4003", "ApplyWorkload: that takes the role user or admin", APPLY, "vic", manifest()),
    "viewer deletes": Case(5, "E4003", "viewer 'vic' may not call DeleteWorkload", ("delete", "there", "--yes"), "vic"),
    "user grants": Case(5, "E4003", "not call CreateUserToken", ("auth", "token", "create", "x", "--role", "admin")),
    "user raises the quota": Case(5, "E4003", "may not call ApplyTenant", ("quota", "set", "default", "--cpu", "9")),
    "expired token": Case(5, "E4001", "the certificate or token has expired", LIST, "old"),
    "unknown token": Case(5, "E4001", "this token is not known here", LIST, NO_SUCH_TOKEN),
    "garbage for a token": Case(5, "E4001", "this is no user token", LIST, "a\nключ"),
    "no token": Case(5, "E4001", "this call needs a token", LIST, ""),
    # quota and tenants
    "over quota": Case(
        1, "E2201", "tenant small has too little quota for new: cpu: 1100m asked in all, quota 1, missing 100m",
        APPLY, "sam", manifest(tenant="small", spec="replicas: 11\n  onQuota: reject", cpu="100m"),
    ),
    "tenant in use": Case(4, "E3005", "still has 1 workload", ("tenant", "delete", "default", "--yes"), "admin"),
    "tenant with slash": Case(2, "E1001", "'a/b' is not allowed", ("tenant", "create", "a/b", "--cpu", "1"), "admin"),
    "no tenant": Case(2, "E1001", "needs a tenant", ("auth", "token", "create", "x", "--role", "user"), "admin"),
    "join token for a path": Case(2, "E1001", "node: 'a/b' is not allowed", (*JOIN, "--node", "a/b"), "admin"),
    "join token for ever": Case(2, "E1001", "ttl", (*JOIN, "--ttl", "9d"), "admin"),
    "join token elsewhere": Case(1, "E1004", "there is no region 'mars'", (*JOIN, "--region", "mars"), "admin"),
    # where to connect to
    "unknown context": Case(2, "E1012", "there is no context 'nope'", (*LIST, "--context", "nope")),
    **{
        name: Case(exit, code, says, (*RUN, "--", "x"), environment={f"ATOLL_{key}": value})
        for name, exit, code, says, key, value in (
            ("nobody there", 6, "E5002", "Connection refused", "ADDRESS", "127.0.0.1:1"),
            ("unknown host", 6, "E5002", "no.such.host.invalid", "ADDRESS", "no.such.host.invalid:1"),
            ("no address", 2, "E1012", "'http://a:1' is not HOST:PORT", "ADDRESS", "http://a:1"),
            ("nowhere", 2, "E1012", "nowhere to connect to: no address", "ADDRESS", ""),
            ("stranger's CA", 6, "E5002", "is the ca file the one of the cluster", "CA", "{home}/stranger/ca.crt"),
            ("missing CA", 2, "E1014", "cannot be read", "CA", "/nope"),
            ("CA that is none", 2, "E1014", "holds no certificate", "CA", "/proc/self/cmdline"),
            ("broken contexts", 2, "E1011", "cannot be read", "CONFIG", "/proc/self/cmdline"),
        )
    },
    **{
        name: Case(2, "E1001", says, APPLY, "admin", text)
        for name, (says, text) in MANIFESTS.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_is_refused_with_a_clear_word_and_nothing_is_done(world: World, case: Case) -> None:
    file = world.home / "work" / "a.yaml"
    file.unlink(missing_ok=True)
    if case.text is not None:
        file.write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    before = world.asked()
    changed = {key: value.format(home=world.home) for key, value in case.environment.items()}
    done = run(world, *case.arguments, who=case.who, environment=changed)
    assert done.returncode == case.exit, done.stderr
    assert case.says in done.stderr
    assert re.findall(r"^Error (E\d{4}): ", done.stderr, re.MULTILINE) == ([case.code] if case.code else []), (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not re.search(r"\.cc:\d+\]", done.stderr), "what gRPC says to its authors"
    assert len(done.stderr) < 2_000
    assert done.stdout == ""
    assert world.asked() == before


def run(
    world: World, *arguments: str, who: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*ATOLL, *arguments],
        cwd=world.home / "work",
        env=world.environment(who) | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- what only programs send


Wrong = Callable[[AsyncClient], Awaitable[object]]


def workload(**changes: int | str) -> objects_pb2.Workload:
    """A good one, but for these fields, named by their paths in the document."""
    document = Workload(name="new", command=("x",), cpu="10m", memory="16Mi").to_proto()
    for path, value in changes.items():
        *names, last = path.split("__")
        target: Any = document
        for name in names:
            target = target[int(name)] if name.isdecimal() else getattr(target, name)
        setattr(target, last, value)
    return document


THERE = workload(metadata__name="there")
TASK = "spec__tasks__0__"
REQUESTS = f"{TASK}resources__requests__"
SENT: dict[str, tuple[type[errors.AtollError], str, Wrong]] = {
    "negative cpu": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(**{f"{REQUESTS}cpu_milli": -1}))),
    "most cpu": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(**{f"{REQUESTS}cpu_milli": 2**63 - 1}))),
    "most replicas": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(**{f"{TASK}replicas": 2**31 - 1}))),
    "unknown enum": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(spec__run_class=99))),
    "NUL": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(metadata__name="a\0b"))),
    "path for a tenant": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(metadata__tenant="../small"))),
    "path for a task": (errors.Invalid, "E1001", lambda c: c.workloads.apply(workload(**{f"{TASK}name": "a/b"}))),
    "nothing": (errors.Invalid, "E1001", lambda c: c.workloads.apply(objects_pb2.Workload())),
    "2 MiB": (errors.Invalid, "E1016", lambda c: c.workloads.apply(workload(**{f"{TASK}image": "x" * (2 << 20)}))),
    "stale apply": (errors.Conflict, "E3002", lambda c: c.workloads.apply(THERE, if_generation=7)),
    "stale creation": (errors.Conflict, "E3002", lambda c: c.workloads.apply(workload(), if_generation=1)),
    "stale scale": (errors.Conflict, "E3002", lambda c: c.workloads.scale("there", 2, if_generation=7)),
    "another body": (errors.Conflict, "E3003", lambda c: c.workloads.scale("there", 2, request_id="first")),
    "another method": (errors.Conflict, "E3003", lambda c: c.workloads.delete("there", request_id="first")),
    "negative replicas": (errors.Invalid, "E1001", lambda c: c.workloads.scale("there", -1)),
    "too many replicas": (errors.Invalid, "E1001", lambda c: c.workloads.scale("there", 10_001)),
    "get a path": (errors.NotFound, "E1004", lambda c: c.workloads.get("../../tenant/default")),
    "get another's": (errors.NotFound, "E1004", lambda c: c.workloads.get("there", tenant="small")),
    "why a negative index": (errors.NotFound, "E1004", lambda c: c.slots.why("there", index=99)),
    "no seconds": (errors.Invalid, "E1001", lambda c: c.tokens.create_join(ttl_s=-1)),
    "no role": (errors.Invalid, "E1001", lambda c: c.tokens.create_user("x", objects_pb2.ROLE_NODE)),
    "negative quota": (errors.Invalid, "E1001", lambda c: c.tenants.apply(negative_quota())),
}  # fmt: skip


def negative_quota() -> objects_pb2.Tenant:
    quota = objects_pb2.Resources(cpu_milli=-1)
    return objects_pb2.Tenant(metadata=objects_pb2.Metadata(name="t"), spec=objects_pb2.TenantSpec(quota=quota))


@pytest.mark.parametrize(("kind", "code", "wrong"), SENT.values(), ids=SENT)
def test_a_program_gets_a_typed_error_and_nothing_is_done(
    world: World, kind: type[errors.AtollError], code: str, wrong: Wrong
) -> None:
    before = world.asked()
    with pytest.raises(errors.AtollError) as caught:
        playground.connected(world.admin, wrong)
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.message
    assert len(str(caught.value)) < 500
    assert world.asked() == before


def test_over_quota_waits_when_it_is_told_to(world: World) -> None:
    """Accepted, placed as far as the quota goes, and says what is missing; with less asked for it serves."""
    (world.home / "work" / "a.yaml").write_text(
        manifest("queued", tenant="small", spec="replicas: 11\n  onQuota: queue", cpu="100m")
    )
    done = run(world, *APPLY, "--timeout", "2s", who="sam")
    assert (done.returncode, done.stdout) == (3, "workload/queued created\n")
    assert "Error E2103: 1 of 11 replicas of queued are not placed in r1" in done.stderr
    assert "ask for cpu 100m more than its quota" in done.stderr
    (line,) = run(world, "queue", "list", who="sam").stdout.splitlines()[1:]
    assert line.split()[:5] == ["r1", "small", "default", "1", "1"], "one waits, and is parked"
    stands = run(world, "queue", "get", "queued", who="sam").stdout
    assert "cpu 100m missing" in stands.splitlines()[1], stands
    assert run(world, "scale", "queued", "10", who="sam").returncode == 0
    assert run(world, "delete", "queued", "--yes", who="sam").returncode == 0


def test_the_same_request_again_has_the_same_answer(world: World) -> None:
    again = (*RUN, "--no-wait", "--request-id", "again", "--", "sleep", "1000")
    answers = [run(world, *again, who="ann") for _ in range(2)]
    assert [(done.returncode, done.stdout) for done in answers] == [(0, "workload/new created\n")] * 2
    assert run(world, "delete", "new", "--yes", who="ann").returncode == 0
