"""The command line, run in this process against an in-memory cluster that lives in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.cli.main import main
from atoll.sdk import contexts
from atoll.sdk.contexts import Connection, Contexts
from tests.support.fake_global import FakeCluster


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with no contexts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATOLL_CONFIG", str(tmp_path / "config.toml"))
    for name in ("CONTEXT", "ADDRESS", "CA", "TOKEN", "CERTIFICATE", "KEY", "TENANT", "ETCD_ENDPOINTS"):
        monkeypatch.delenv(f"ATOLL_{name}", raising=False)
    return tmp_path


@pytest.fixture
def atoll(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """`atoll("get", "workloads")`: exit code, standard output, standard error."""

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def cluster(home: Path) -> Iterator[FakeCluster]:
    """A fake cluster, and a context `test` that dials it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> FakeCluster:
        fake = FakeCluster(home / "pki")
        await fake.start()
        return fake

    (home / "pki").mkdir()
    fake = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    connection = Connection(fake.address, str(fake.ca), fake.token, tenant="default")
    contexts.save(Contexts("test", {"test": connection}))
    yield fake
    asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()
