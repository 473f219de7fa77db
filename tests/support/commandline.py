"""The real command line against a cluster, and what users must see of a cause: in `why`, in `get` and in `wait`."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atoll.sdk.client import AsyncClient
from tests.support.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
ATOLL = [sys.executable, "-c", "from atoll.cli.main import main; main()"]
HEALED_S = 60.0


def _run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )


async def atoll(cluster: Cluster, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as an admin types it."""
    it = cluster.connection
    known = {"ADDRESS": it.address, "CA": it.ca, "CERTIFICATE": it.certificate, "KEY": it.key, "TENANT": it.tenant}
    variables = {f"ATOLL_{key}": value for key, value in {**known, **variables}.items()}
    home = str(cluster.folder / "no-contexts")
    return await asyncio.to_thread(_run, *ATOLL, *arguments, ATOLL_CONFIG=home, PYTHONPATH=str(ROOT), **variables)


async def until(holds: Callable[[], Any], what: str) -> Any:
    try:
        async with asyncio.timeout(HEALED_S):
            while True:
                if found := (await answer if asyncio.iscoroutine(answer := holds()) else answer):
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(what) from None


async def told(cluster: Cluster, name: str, code: str, *words: str) -> None:
    """Why, get and wait all name this cause."""
    why = await until(lambda: _says(cluster, name, f"({code})"), f"`why {name}` never says {code}")
    for word in words:
        assert word in why, why
    await until(lambda: _lists(cluster, name, f"({code})"), f"`get {name}` never says {code}")
    waited = await until(lambda: _waits(cluster, name, f"({code})"), f"`wait {name}` never says {code}")
    assert "Error E2103: 1 of 1 replicas of" in waited and "Try   atoll " in waited, waited


async def _lists(cluster: Cluster, name: str, word: str) -> bool:
    """Rolled up at the global plane a little later."""
    return word in (await atoll(cluster, "get", "workload", name)).stdout


async def _waits(cluster: Cluster, name: str, word: str) -> str:
    """Between two tries there is nothing to blame for a moment."""
    waited = await atoll(cluster, "wait", name, "--timeout", "1s")
    assert waited.stdout == ""
    return waited.stderr if waited.returncode == 3 and word in waited.stderr else ""


async def _says(cluster: Cluster, name: str, word: str) -> str:
    said = (await atoll(cluster, "why", name)).stdout
    return said if word in said else ""


async def serves(client: AsyncClient, name: str) -> None:
    workload = await client.workloads.wait(name, timeout=HEALED_S)
    await until(lambda: _nothing_pending(client, name), f"{name} serves and still has reasons: {workload.status}")


async def _nothing_pending(client: AsyncClient, name: str) -> bool:
    return not (await client.workloads.get(name)).status.pending
