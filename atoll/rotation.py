"""Another root for a cluster, while it runs: trusted beside the old one, then the one that signs, then the only one.

Three steps, each a moment at which every certificate that is shown somewhere is trusted everywhere, as long as the
operator has brought the authority's `ca.crt` to every program before the next one. Each step can be done again when it
was cut short: files change by renaming, and `next/`, the new root until it signs, goes last.
"""

import os
import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from atoll.errors import Invalid
from atoll.identity import CertificateAuthority, write_private


def start(folder: Path, now_ms: int) -> None:
    """Makes the new root; `ca.crt` holds both, and the old one signs. Raises Invalid while a rotation is under way."""
    authority, roots = CertificateAuthority(folder), _roots(folder)
    if len(roots) > 1:
        raise Invalid(f"{folder} trusts {len(roots)} roots: a rotation is under way", code="E1022")
    if not (_next(folder) / "ca.crt").exists():
        CertificateAuthority.create(_next(folder), authority.cluster, now_ms)
    _trust(folder, [*roots, *_roots(_next(folder))])


def switch(folder: Path) -> None:
    """The new root signs from here on; `ca.crt` holds both. Raises Invalid when none was started."""
    if not (_next(folder) / "ca.crt").exists():
        raise Invalid(f"{folder} has no new root to switch to", hint="atoll ca rotate start", code="E1022")
    (fresh,) = _roots(_next(folder))
    old = [root for root in _roots(folder) if root != fresh]
    write_private(folder / "ca.key.new", (_next(folder) / "ca.key").read_bytes())
    _trust(folder, [fresh, *old])
    os.replace(folder / "ca.key.new", folder / "ca.key")
    shutil.rmtree(_next(folder))


def finish(folder: Path) -> None:
    """Only the root that signs is trusted. Raises Invalid before the switch."""
    CertificateAuthority(folder)  # or else the key is not that of the first
    if _next(folder).exists():
        raise Invalid("the old root still signs", hint="atoll ca rotate switch", code="E1022")
    _trust(folder, _roots(folder)[:1])


def _next(folder: Path) -> Path:
    return folder / "next"


def _roots(folder: Path) -> list[x509.Certificate]:
    """As trusted, the one that signs first."""
    return x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())


def _trust(folder: Path, roots: list[x509.Certificate]) -> None:
    fresh = folder / "ca.crt.new"
    fresh.write_bytes(b"".join(root.public_bytes(serialization.Encoding.PEM) for root in roots))
    os.replace(fresh, folder / "ca.crt")
