"""`atoll demo --simulated`: nodes without containers are ordinary nodes to the programs and to the auditor."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.etcd import need_etcd
from tests.support.processes import left_running

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
SHOW = [sys.executable, "-c", "from atoll.cli.main import main; main()", "demo", "--simulated", "90", "--once"]


def test_simulated_nodes_take_replicas(tmp_path: Path) -> None:
    need_etcd()
    mine = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_") or key == "ATOLL_ETCD"}
    places = {"ATOLL_CONFIG": str(tmp_path / "config.toml"), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(SHOW, env={**mine, **places}, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "90 nodes are ready: ap-south 30 · eu-west 30 · us-east 30" in done.stdout
    assert re.search(r"all serving: .*360", done.stdout)
    assert "PASS" in done.stdout
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
