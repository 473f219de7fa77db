"""etcd endpoints that are wrong: said within seconds, with a code, and healed by nothing but etcd being there."""

import asyncio
import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from atoll.store.etcd import EtcdStore
from tests.support.audit import assert_clean
from tests.support.etcd import EtcdCluster, free_ports
from tests.support.pki import Pki
from tests.support.processes import Program
from tests.support.wait import until

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]
HOSTS = ("127.0.0.1",)


def settings(folder: Path, program: str, etcd: list[str], *, metrics: int = 0) -> Path:
    """A file for the global plane, or for a regional scheduler of `r1`."""
    pki = Pki(folder / program)
    common: dict[str, Any] = {"etcd": etcd, "people": "127.0.0.1:0", "programs": "127.0.0.1:0"}
    common["metrics"] = f"127.0.0.1:{metrics}"
    if program == "regional":
        tls, issuer = pki.region("r1"), pki.issuer("r1")
        common |= {"region": "r1", "name": "r1-1", "state_dir": str(folder), "global_plane": ["127.0.0.1:1"]}
        common |= {"issuer_certificate": str(issuer.certificate), "issuer_key": str(issuer.key)}
    else:
        tls = pki.global_plane()
    common |= {"certificate": str(tls.certificate), "key": str(tls.key), "ca": str(tls.ca)}
    path = folder / f"{program}.toml"
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in common.items()))
    return path


def said(program: Program, code: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in program.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("code") == code]


async def leads(etcd: EtcdCluster) -> None:
    """Until something was written; then the auditor looks at it."""
    store = await EtcdStore.connect(etcd.endpoints)
    try:
        async with asyncio.timeout(30):
            while (await store.status()).revision < 2:  # noqa: ASYNC110 - the store gives no notice here
                await asyncio.sleep(0.05)
        await assert_clean(store)
    finally:
        await store.close()


def scraped(port: int) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("module", ["global_cp", "regional"])
async def test_a_program_waits_for_its_store_and_says_so(tmp_path: Path, module: str) -> None:
    (metrics,) = free_ports(1)
    with EtcdCluster(fsync=False) as etcd:
        etcd.kill(0)
        program = Program(module, settings(tmp_path, module, list(etcd.endpoints), metrics=metrics))
        starting = asyncio.create_task(program.start())
        try:
            await until(lambda: said(program, "E5004"), 20)
            line = said(program, "E5004")[0]
            assert etcd.endpoints[0] in line["reason"] and "Connection refused" in line["reason"]
            assert line["hint"].startswith("is etcd up")
            assert "atoll_store_awaited 1.0" in await asyncio.to_thread(scraped, metrics)
            assert not starting.done(), "it is not ready"
            await asyncio.to_thread(etcd.restart, 0)
            await starting
            assert "atoll_store_awaited 0.0" in await asyncio.to_thread(scraped, metrics)
            await leads(etcd)
        finally:
            assert await program.stop() == 0
            await asyncio.gather(starting, return_exceptions=True)


async def test_a_program_that_waits_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    program = Program("global_cp", settings(tmp_path, "global_cp", ["127.0.0.1:1"]))
    starting = asyncio.create_task(program.start())
    await until(lambda: said(program, "E5004"), 20)
    assert await program.stop() == 0
    with pytest.raises(AssertionError, match="ended before it was ready"):
        await starting


async def test_one_right_endpoint_is_enough(tmp_path: Path) -> None:
    """Beside one where nobody is, and one where somebody is who never answers."""
    with socket.socket() as silent, EtcdCluster(fsync=False) as etcd:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        wrong = ["127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"]
        program = Program("global_cp", settings(tmp_path, "global_cp", [*wrong, *etcd.endpoints]))
        await program.start()
        try:
            await leads(etcd)
        finally:
            assert await program.stop() == 0


@pytest.mark.parametrize(
    ("etcd", "code", "says"),
    [("nowhere", 2, "E1010"), ("https://127.0.0.1:2379", 2, "needs TLS files")],
)
def test_what_waiting_cannot_cure_ends_it(tmp_path: Path, etcd: str, code: int, says: str) -> None:
    path = settings(tmp_path, "global_cp", [etcd])
    done = subprocess.run(
        [sys.executable, "-m", "global_cp", "--config", str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr


def test_verify_says_which_endpoint_is_wrong() -> None:
    command = [sys.executable, "-c", "from atoll.cli.main import main; main()", "verify", "--etcd", "127.0.0.1:1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("Error E5004: the store does not answer: no etcd member answered within 2 s: ")
    assert "127.0.0.1:1: " in done.stderr and "Try   is etcd up" in done.stderr
