"""A client's certificate that nobody would take, said before it is shown."""

from pathlib import Path

from atoll.credentials import why_unusable
from atoll.identity import TlsFiles
from tests.support.pki import Pki

DAY_MS = 24 * 3_600_000


def test_good_ones_are_not_complained_about(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    for files in (pki.admin(), pki.region("r1"), pki.node("r1", "n1")):
        assert why_unusable(files, pki.now_ms) == ""


def test_one_that_has_expired_says_when(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    assert "admin.crt expired at 2" in why_unusable(pki.admin(), pki.now_ms + 91 * DAY_MS)
    assert "expired" in why_unusable(pki.node("r1", "n1"), pki.now_ms + 2 * DAY_MS)


def test_one_of_another_cluster_says_so(tmp_path: Path) -> None:
    ours, theirs = Pki(tmp_path / "a"), Pki(tmp_path / "b")
    for files in (theirs.admin(), theirs.node("r1", "n1")):
        shown = TlsFiles(files.certificate, files.key, ours.ca)
        assert "is of another cluster than" in why_unusable(shown, ours.now_ms)


def test_files_that_cannot_be_read_are_for_who_dials(tmp_path: Path) -> None:
    assert why_unusable(TlsFiles(tmp_path / "no", tmp_path / "no", tmp_path / "no"), 0) == ""
