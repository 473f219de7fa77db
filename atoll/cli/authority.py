"""`ca`: the cluster's own certificate authority, a folder that stays with the operator."""

from pathlib import Path

import click

from atoll import rotation
from atoll.cli import output
from atoll.cli.command import Group
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority, TlsFiles

FOLDER = click.option(
    "--ca", "folder", default="ca", show_default=True, type=click.Path(path_type=Path), help="The authority's folder."
)
INTO = click.option("--into", required=True, type=click.Path(path_type=Path), help="Folder for certificate and key.")
HOSTS = click.option("--host", "hosts", multiple=True, required=True, help="Name or address it is dialled by.")


@click.group(
    cls=Group,
    examples="""\
  atoll ca init --cluster prod
  atoll ca issue global g1 --host g1.example.com --into global/
  atoll ca issue region eu-west --host eu1.example.com --into region/
  atoll ca issue issuer eu-west --into region/
  atoll ca issue admin ann --into admin/
  atoll ca rotate start
""",
)
def ca() -> None:
    """The cluster's own certificate authority."""


@ca.command(
    "init",
    examples="""\
  atoll ca init --cluster prod
  atoll ca init --cluster prod --ca /secure/ca
  atoll ca issue admin ann --ca /secure/ca --into admin/   what comes after
""",
)
@click.option("--cluster", required=True, help="The cluster's name, part of every identity.")
@FOLDER
def init(cluster: str, folder: Path) -> None:
    """Create the root. Its key never leaves this folder."""
    CertificateAuthority.create(folder, cluster, SystemClock().now_ms())
    output.tell(f"root of cluster {cluster} in {folder}\nTry   atoll ca issue admin ann --ca {folder} --into admin")


@ca.group(
    "issue",
    examples="""\
  atoll ca issue global g1 --host g1.example.com --into global/
  atoll ca issue region eu-west --host eu1.example.com --into region/
  atoll ca issue admin ann --into admin/
""",
)
def issue() -> None:
    """Certificates of programs and admins."""


@issue.command(
    "global",
    examples="""\
  atoll ca issue global g1 --host g1.example.com --into global/
  atoll ca issue global g1 --host g1.example.com --host 10.0.0.7 --into global/
  atoll ca issue global g2 --host g2.example.com --into standby/ --ca /secure/ca
""",
)
@click.argument("name")
@HOSTS
@INTO
@FOLDER
def global_(name: str, hosts: tuple[str, ...], into: Path, folder: Path) -> None:
    """For a process of the global plane."""
    authority, now_ms = _open(folder)
    _told(authority.issue_global(name, hosts, into, now_ms))


@issue.command(
    "region",
    examples="""\
  atoll ca issue region eu-west --host eu1.example.com --into region/
  atoll ca issue region eu-west --name r2 --host eu2.example.com --into standby/
  atoll ca issue region eu-west --host 10.0.0.7 --into region/ --ca /secure/ca
""",
)
@click.argument("region")
@click.option("--name", default="r1", show_default=True, help="The process.")
@HOSTS
@INTO
@FOLDER
def region(region: str, name: str, hosts: tuple[str, ...], into: Path, folder: Path) -> None:
    """For a process of a region."""
    authority, now_ms = _open(folder)
    _told(authority.issue_region(region, name, hosts, into, now_ms))


@issue.command(
    "issuer",
    examples="""\
  atoll ca issue issuer eu-west --into region/
  atoll ca issue issuer us-east --into us-east/
  atoll ca issue issuer eu-west --into region/ --ca /secure/ca
""",
)
@click.argument("region")
@INTO
@FOLDER
def issuer(region: str, into: Path, folder: Path) -> None:
    """The authority with which a region signs its nodes, and no others."""
    authority, now_ms = _open(folder)
    _told(authority.issue_region_issuer(region, into, now_ms))


@issue.command(
    "admin",
    examples="""\
  atoll ca issue admin ann --into admin/
  atoll ca issue admin ann --into admin/ --ca /secure/ca
  atoll context set prod --address HOST:7071 --ca admin/ca.crt --certificate admin/admin.crt --key admin/admin.key
""",
)
@click.argument("name")
@INTO
@FOLDER
def admin(name: str, into: Path, folder: Path) -> None:
    """For a person who may do everything, before there are tokens."""
    authority, now_ms = _open(folder)
    _told(authority.issue_admin(name, into, now_ms))


@ca.group(
    "rotate",
    examples="""\
  atoll ca rotate start --into global/ --into region/ --into admin/
  atoll ca rotate switch --into global/ --into region/ --into admin/
  atoll ca rotate finish --into global/ --into region/ --into admin/
""",
)
def rotate() -> None:
    """Another root, while the cluster runs: docs/certificates.md."""


INTO_ALL = click.option(
    "--into", "folders", multiple=True, type=click.Path(path_type=Path), help="Folder to copy ca.crt into."
)


def _there(folders: tuple[Path, ...]) -> None:
    """Before anything is changed: each folder is there."""
    for missing in (folder for folder in folders if not folder.is_dir()):
        raise click.BadParameter(f"{str(missing)!r} is no folder", param_hint="--into")


@rotate.command(
    "start",
    examples="""\
  atoll ca rotate start
  atoll ca rotate start --into global/ --into region/
  atoll ca rotate start --ca /secure/ca
""",
)
@INTO_ALL
@FOLDER
def start(folders: tuple[Path, ...], folder: Path) -> None:
    """Make a new root, trusted beside the old one, which goes on to sign."""
    _there(folders)
    rotation.start(folder, SystemClock().now_ms())
    _copied(folder, folders, "when every program and node has it:   atoll ca rotate switch")


@rotate.command(
    "switch",
    examples="""\
  atoll ca rotate switch
  atoll ca rotate switch --into global/ --into region/
  atoll ca issue issuer eu-west --into region/   what comes after
""",
)
@INTO_ALL
@FOLDER
def switch(folders: tuple[Path, ...], folder: Path) -> None:
    """Sign with the new root from here on; the old one is still trusted."""
    _there(folders)
    rotation.switch(folder)
    _copied(
        folder, folders, "issue every certificate anew; when all nodes have renewed theirs:   atoll ca rotate finish"
    )


@rotate.command(
    "finish",
    examples="""\
  atoll ca rotate finish
  atoll ca rotate finish --into global/ --into region/
  atoll ca rotate finish --ca /secure/ca
""",
)
@INTO_ALL
@FOLDER
def finish(folders: tuple[Path, ...], folder: Path) -> None:
    """Trust the old root no more."""
    _there(folders)
    rotation.finish(folder)
    _copied(folder, folders, "when every program and node has it, the old root proves nothing any more")


def _copied(folder: Path, folders: tuple[Path, ...], then: str) -> None:
    roots = (folder / "ca.crt").read_bytes()
    for into in folders:
        fresh = into / "ca.crt.new"
        fresh.write_bytes(roots)
        fresh.replace(into / "ca.crt")
    output.tell(f"whom to trust is in {folder / 'ca.crt'}\nNext   {then}")


def _open(folder: Path) -> tuple[CertificateAuthority, int]:
    return CertificateAuthority(folder), SystemClock().now_ms()


def _told(files: TlsFiles) -> None:
    output.write(f"{files.certificate}\n{files.key}\n{files.ca}\n")
