"""`verify`: the auditor, over a store."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from atoll import audit, errors, verification
from atoll.cli import output
from atoll.cli.command import Command
from atoll.cli.failure import EXIT_OBJECTIVE
from atoll.sdk import contexts

if TYPE_CHECKING:
    from atoll.identity import TlsFiles

SHOWN = 20
REACH_S = 5.0
HINT = "is etcd up, and is this where it listens? atoll verify --etcd HOST:PORT"


@click.command(
    cls=Command,
    examples="""\
  atoll verify
  atoll verify -f
  atoll verify --since 1200000    of a long history the newest part
  atoll verify --etcd 10.0.0.1:2379 --etcd 10.0.0.2:2379
  atoll verify --etcd 10.0.0.1:2379 --etcd-ca ca.crt --etcd-certificate reader.crt --etcd-key reader.key
""",
)
@click.option(
    "--etcd", "endpoints", multiple=True, metavar="HOST:PORT",
    help="A member of the store; else those of the context, or $ATOLL_ETCD_ENDPOINTS, separated by spaces.",
)  # fmt: skip
@click.option(
    "--etcd-ca", default="", metavar="FILE", help="For TLS: etcd's root, with both below; else the context's."
)
@click.option("--etcd-certificate", default="", metavar="FILE")
@click.option("--etcd-key", default="", metavar="FILE")
@click.option("--context", default="", metavar="NAME", help="Which cluster, see `atoll context list`.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the store changes, until Ctrl-C.")
@output.shown_as()
@click.option("--until", type=click.IntRange(1), default=None, metavar="REVISION", help="Check up to this revision.")
@click.option(
    "--since", type=click.IntRange(0), default=0, metavar="REVISION",
    help="Begin with the state there: etcd answers others late while it reads hundreds of thousands of revisions.",
)  # fmt: skip
def verify(
    endpoints: tuple[str, ...], context: str, follow: bool, style: str, until: int | None, since: int, **files: str
) -> None:
    """Replay the store from its first revision and check every invariant at every one.

    Exit code 8 when one is broken; `-o name` prints only those. Shares no code with the programs that wrote the store.
    """
    endpoints, tls = _where(endpoints, files, context)
    latest: list[audit.Verdict] = []
    try:
        audited = audit_store(endpoints, tls=tls, follow=follow, until=until, since=since, report=latest.append)
        latest.append(asyncio.run(audited))
    except KeyboardInterrupt:
        output.tell("")
    if latest:
        show(latest[-1], style)
        if latest[-1].violations:
            sys.exit(EXIT_OBJECTIVE)


def _where(
    endpoints: tuple[str, ...], files: dict[str, str], context: str
) -> "tuple[tuple[str, ...], TlsFiles | None]":
    """The store as it is given, else that of the context, and the files for TLS to it. Raises Invalid: it has none."""
    from atoll.identity import tls_to_etcd

    if not endpoints:
        known = contexts.connection(context)
        endpoints = tuple(known.etcd_endpoints.split())
        files = {name: files[name] or getattr(known, name) for name in files}
    names = [Path(text) if text else None for text in (files[f"etcd_{part}"] for part in ("ca", "certificate", "key"))]
    try:
        tls = tls_to_etcd(*names)
    except ValueError as error:
        raise errors.Invalid(str(error)) from None
    if endpoints:
        return endpoints, tls
    raise errors.Invalid(
        "which store? This context names no etcd",
        hint="atoll verify --etcd HOST:PORT, or atoll context set NAME --etcd HOST:PORT",
        code="E1012",
    )


async def audit_store(
    endpoints: tuple[str, ...],
    *,
    tls: "TlsFiles | None" = None,
    follow: bool = False,
    until: int | None = None,
    since: int = 0,
    quiet: bool = False,
    report: Callable[[audit.Verdict], None] = lambda verdict: None,
) -> audit.Verdict:
    """Audits the store; whenever there is news, at most once a second, a line of progress on standard error, unless
    `quiet`, and to `report`. Raises Unavailable; Invalid for a store we do not take."""
    from atoll.store.etcd import EtcdStore
    from atoll.store.store import StoreError, StoreUnavailable

    told = 0

    def progress(verdict: audit.Verdict) -> None:
        nonlocal told
        if verdict.revision != told and not quiet:
            output.tell(verdict.line(0))
        told = verdict.revision
        report(verdict)

    try:
        store = await EtcdStore.connect(endpoints, tls=tls, deadline_s=REACH_S)
        try:
            return await verification.verify(
                store, follow=follow, until_revision=until, since_revision=since, report=progress
            )
        finally:
            await store.close()
    except StoreUnavailable as error:
        raise errors.Unavailable(f"the store does not answer: {error}", hint=HINT, code="E5004") from error
    except (StoreError, ValueError) as error:
        raise errors.Invalid(str(error)) from error


def show(verdict: audit.Verdict, style: str = "table") -> None:
    """The verdict on standard output: one line, then what is broken and what was not looked at."""
    if not output.is_table(style):
        broken = dict(verdict.broken)
        document = {
            "revision": verdict.revision,
            "since": verdict.since,
            "checked": verdict.checked,
            "hold": [invariant for invariant in audit.CHECKED if invariant not in broken],
            "broken": [{"invariant": invariant, "times": times} for invariant, times in broken.items()],
            "violations": [str(violation) for violation in verdict.violations],
            "notes": list(verdict.notes),
        }
        output.write(output.documents([document], style, names=broken, single=True))
        return
    output.write(f"{verdict.line(0)} ({verdict.checked} revisions checked)\n")
    for violation in verdict.violations[:SHOWN]:
        output.write(f"  {output.visible(str(violation))}\n")
    for note in verdict.notes:
        output.tell(f"  note: {output.visible(note)}")
