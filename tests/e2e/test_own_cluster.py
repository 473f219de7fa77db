"""docs/own-cluster.md, as it stands: every line of it is run, on other ports."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atoll.cli.children import free_ports
from tests.support.etcd import need_etcd
from tests.support.processes import left_running

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(240)]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-cluster.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def test_every_line_works(tmp_path: Path) -> None:
    etcd = need_etcd()
    client, peer, people, programs, region_people, region_programs = map(str, free_ports(6))
    lines = "".join(BLOCK.findall(PAGE.read_text()))
    ports = {"2379": client, "7071": programs, "7170": region_people, "7171": region_programs}
    for written, used in ports.items():
        lines = lines.replace(f":{written}", f":{used}")
    elsewhere = {
        "ATOLL_GLOBAL_PEOPLE": f"127.0.0.1:{people}",
        "ATOLL_GLOBAL_PROGRAMS": f"127.0.0.1:{programs}",
        "ATOLL_GLOBAL_METRICS": "127.0.0.1:0",
        "ATOLL_REGION_PEOPLE": f"127.0.0.1:{region_people}",
        "ATOLL_REGION_PROGRAMS": f"127.0.0.1:{region_programs}",
        "ATOLL_REGION_METRICS": "127.0.0.1:0",
        "ATOLL_AGENT_RUN_NETWORK": "",
        "ETCD_LISTEN_CLIENT_URLS": f"http://127.0.0.1:{client}",
        "ETCD_ADVERTISE_CLIENT_URLS": f"http://127.0.0.1:{client}",
        "ETCD_LISTEN_PEER_URLS": f"http://127.0.0.1:{peer}",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": f"http://127.0.0.1:{peer}",
        "ETCD_INITIAL_CLUSTER": f"default=http://127.0.0.1:{peer}",
        "ETCD_DATA_DIR": str(tmp_path / "data"),
        "ATOLL_CONFIG": str(tmp_path / "config.toml"),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), str(etcd.parent), os.environ["PATH"])),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ATOLL_", "ETCD_"))}
    script = f"set -eu\n{lines}\natoll delete hello --yes\n"
    shell = subprocess.Popen(
        ["sh", "-c", script],
        cwd=tmp_path,
        env={**inherited, **elsewhere},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = shell.communicate(timeout=180)
    finally:
        os.killpg(shell.pid, signal.SIGTERM)  # what it left in the background; the replicas are deleted
    assert shell.returncode == 0, out
    assert "serving 2/2" in out
    assert "hello/0  bound on n1" in out
    assert "hold at revision" in out
    deadline = time.monotonic() + 20
    while left := left_running(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
