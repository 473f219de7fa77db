"""`atoll ca rotate`, step by step, and where it puts what everybody is to trust."""

from pathlib import Path

from atoll.identity import ca_digests
from tests.unit.atoll.cli.conftest import Run


def test_a_rotation_copies_the_roots_into_the_folders_named(atoll: Run, home: Path) -> None:
    assert not atoll("ca", "init", "--cluster", "prod").code
    assert not atoll("ca", "issue", "region", "eu-west", "--host", "127.0.0.1", "--into", "region").code
    counts = []
    for step in ("start", "switch", "finish"):
        assert not atoll("ca", "rotate", step, "--into", "region").code
        counts.append(len(ca_digests((home / "region" / "ca.crt").read_bytes())))
    assert counts == [2, 2, 1]
    assert not atoll("ca", "issue", "admin", "ann", "--into", "admin").code
    assert (home / "admin" / "ca.crt").read_bytes() == (home / "region" / "ca.crt").read_bytes()


def test_a_step_out_of_order_says_which_comes_first(atoll: Run) -> None:
    atoll("ca", "init", "--cluster", "prod")
    refused = atoll("ca", "rotate", "switch")
    assert refused.code and "atoll ca rotate start" in refused.err
