"""Which etcd to run, and whether its version is good enough.

Decides nothing about the store's content. `atoll dev`, `atoll doctor`, the tests and the adapter's version check at
connect share this one rule: 3.4.22 and later of 3.4, 3.5.6 and later of 3.5, everything newer.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from atoll.store.store import StoreError

VARIABLE = "ATOLL_ETCD"  # the path of the binary; comes before PATH
_OLDEST = {(3, 4): 22, (3, 5): 6}  # the first good patch release of each line that has bad ones


class EtcdMissing(StoreError):
    """No usable etcd binary here. Whose fault: the installation's. Retry: no."""


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    path: Path
    version: str  # "3.4.23"


def find_etcd() -> EtcdBinary:
    """$ATOLL_ETCD, else the `etcd` on PATH. Says nothing about the version: see `refusal`. Raises EtcdMissing."""
    named = os.environ.get(VARIABLE, "")
    found = named or shutil.which("etcd")
    if not found:
        raise EtcdMissing(f"no etcd on PATH: install etcd-server, or name the binary in ${VARIABLE}")
    try:
        answer = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EtcdMissing(f"{found} --version: {error}") from error
    match = re.search(r"etcd Version: (\S+)", answer)
    if not match:
        raise EtcdMissing(f"{found} does not say its version as etcd does")
    return EtcdBinary(Path(found), match[1])


def parse_version(version: str) -> tuple[int, int, int] | None:
    """(3, 4, 23) of "3.4.23" or "3.5.0-rc.1"; None when it is no version."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def refusal(version: str) -> str | None:
    """Why Atoll does not run on this etcd; None when it does."""
    parsed = parse_version(version)
    if parsed is None:
        return f"etcd {version!r}: not a version"
    major, minor, patch = parsed
    if (major, minor) == (3, 5) and patch <= 2:
        return f"etcd {version}: a killed member can lose committed data in 3.5.0 to 3.5.2; use 3.5.33 or later"
    if (major, minor) < (3, 4) or patch < _OLDEST.get((major, minor), 0):
        return f"etcd {version} is too old: needs 3.4.22, 3.5.6 or 3.6.0 or later"
    return None
