"""Workloads: apply, run, wait, scale, delete."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Command
from atoll.cli.progress_line import ProgressLine
from atoll.cli.session import Seconds, connected
from atoll.sdk import progress
from atoll.sdk.workloads import Applied

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

STAGES = click.Choice((*progress.STAGES, progress.DONE, progress.DELETED))


def read_manifests(files: Sequence[str]) -> list[manifest.Document]:
    """Every document of every file. Raises ManifestError with the mistakes of all files."""
    documents: list[manifest.Document] = []
    marks: list[manifest.Mark] = []
    for name, content in _contents(files):
        try:
            documents.extend(manifest.parse(content, name))
        except manifest.ManifestError as error:
            marks.extend(error.marks)
    if marks:
        raise manifest.ManifestError(marks)
    return documents


def _contents(files: Sequence[str]) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for name in files:
        if name == "-":
            found.append(("<stdin>", sys.stdin.buffer.read()))
            continue
        path = Path(name)
        try:
            inside = sorted(path.iterdir()) if path.is_dir() else [path]
            chosen = [file for file in inside if file == path or file.suffix in (".yaml", ".yml", ".json")]
            found.extend((str(file), file.read_bytes()) for file in chosen)
        except OSError as error:
            raise errors.Invalid(f"{output.visible(name)} cannot be read: {error.strerror}") from None
        if not chosen:
            raise errors.Invalid(f"{output.visible(name)} holds no file named *.yaml, *.yml or *.json")
    return found


def manifests(**attributes: Any) -> Callable[[FC], FC]:
    """The option -f: what it names is read before anything is dialled, so every mistake shows first."""
    return click.option(
        "-f",
        "--file",
        "documents",
        multiple=True,
        metavar="FILE",
        callback=lambda context, option, files: read_manifests(files) if files else [],
        **attributes,
    )


def waiting(verb: FC) -> FC:
    """The options of a command that waits by default."""
    verb = click.option("--timeout", type=Seconds(), default="5m", show_default=True, help="How long to wait.")(verb)
    return click.option("--wait/--no-wait", default=True, help="Wait until it serves; Ctrl-C is safe.")(verb)


def mutation(verb: FC) -> FC:
    text = "Say the same one to ask again after no answer."
    return click.option("--request-id", default="", metavar="ID", help=text)(verb)


@click.command(
    cls=Command,
    examples="""\
  atoll apply -f hello.yaml
  atoll apply -f deploy/ --dry-run
  cat hello.yaml | atoll apply -f - --no-wait
""",
)
@manifests(required=True, help="File, folder, or - for standard input.")
@click.option("--dry-run", is_flag=True, help="Only let the server check it.")
@output.result
@mutation
@waiting
@connected
async def apply(
    client: "AsyncClient",
    documents: list[manifest.Document],
    dry_run: bool,
    style: str,
    request_id: str,
    wait: bool,
    timeout: float,
) -> None:
    """Create or change what manifests say, and wait until it serves.

    All mistakes are shown at once, with line and column, before anything is sent. Tenants go first.
    """
    waits = await apply_documents(client, documents, request_id, dry_run, style)
    if wait and not dry_run:
        for applied in waits:
            await wait_for(client, applied.workload, "", timeout)


async def apply_documents(
    client: "AsyncClient", documents: list[manifest.Document], request_id: str, dry_run: bool, style: str
) -> list[Applied]:
    """Applies all, tenants first, and shows each. The workloads. A server's mistakes get their place in the text, and
    one that it finds in any of several documents is told before the first of them is sent."""
    applied: list[Applied] = []
    if len(documents) > 1:
        await try_workloads(client, documents)
    for number, document in enumerate(sorted(documents, key=lambda document: document.kind != "Tenant")):
        numbered = f"{request_id}.{number}" if request_id and number else request_id
        with located(document):
            if isinstance(document.message, objects_pb2.Workload):
                one = await client.workloads.apply(document.message, request_id=numbered, dry_run=dry_run)
                show_applied(style, one, dry_run=dry_run)
                applied.append(one)
            elif isinstance(document.message, objects_pb2.Tenant):
                answer = await client.tenants.apply(document.message, request_id=numbered, dry_run=dry_run)
                show(style, "Tenant", answer.tenant, answer.outcome + " (dry run)" * dry_run)
            elif isinstance(document.message, objects_pb2.SchedulerPolicy):
                made = await client.policies.apply(document.message, request_id=numbered, dry_run=dry_run)
                show(style, "SchedulerPolicy", made.policy, made.outcome + " (dry run)" * dry_run)
    return applied


@contextlib.contextmanager
def located(document: manifest.Document) -> Iterator[None]:
    """A server's mistakes get their place in the text."""
    try:
        yield
    except errors.Invalid as error:
        if not error.mistakes:
            raise
        raise manifest.ManifestError(_marks(document, error)) from None


async def try_workloads(client: "AsyncClient", documents: list[manifest.Document]) -> None:
    """Lets the server check each workload, but those of tenants that are among the documents. Raises all mistakes."""
    tenants = {d.message.metadata.name for d in documents if isinstance(d.message, objects_pb2.Tenant)}
    marks: list[manifest.Mark] = []
    for document in documents:
        message = document.message
        if not isinstance(message, objects_pb2.Workload):
            continue
        if (message.metadata.tenant or client.connection.tenant) in tenants:
            continue
        try:
            await client.workloads.apply(message, dry_run=True)
        except errors.Invalid as error:
            if not error.mistakes:
                raise
            marks += _marks(document, error)
    if marks:
        raise manifest.ManifestError(marks)


def _marks(document: manifest.Document, error: errors.Invalid) -> list[manifest.Mark]:
    return [document.mark(mistake.path, mistake.message) for mistake in error.mistakes]


def show_applied(style: str, applied: Applied, *, dry_run: bool = False) -> None:
    show(style, "Workload", applied.workload, applied.outcome + " (dry run)" * dry_run)
    for warning in applied.warnings:
        output.tell(output.visible(f"warning: {applied.workload.metadata.name}: {warning}"))


def show(style: str, kind: str, message: Any, outcome: str) -> None:
    """The result of one mutation; a command may have several."""
    view = views.BY_KIND[kind]
    if style == "name":
        output.write(f"{kind.lower()}/{output.visible(f'{view.name(message)} {outcome}')}\n")
    else:
        output.write("---\n" * (style == "yaml") + output.render(view, [message], style, single=True))


async def wait_for(client: "AsyncClient", workload: objects_pb2.Workload, until: str, timeout: float) -> None:
    """Waits with a line of progress on standard error. `until` empty: serving; started for a job; admitted for a job of
    which only a part starts at once."""
    spec = workload.spec
    later = (
        spec.not_before_ms
        or spec.HasField("schedule")
        or any(task.depends_on or task.parallelism for task in spec.tasks)
    )
    job = "" if spec.type != objects_pb2.WORKLOAD_TYPE_JOB else "admitted" if later else "started"
    with ProgressLine(workload.metadata.name, leaves=until == progress.DELETED) as line:
        await client.workloads.wait(workload, until=until or job or "serving", timeout=timeout, seen=line.update)


@click.command(
    cls=Command,
    examples="""\
  atoll wait hello
  atoll wait hello --for bound --timeout 30s
  atoll wait import-job --for done --timeout 1h
""",
)
@click.argument("name")
@click.option("--for", "until", type=STAGES, default="serving", show_default=True)
@click.option("--timeout", type=Seconds(), default="5m", show_default=True)
@connected
async def wait(client: "AsyncClient", name: str, until: str, timeout: float) -> None:
    """Wait until a workload has come so far. Exit code 3 when it has not in time."""
    try:
        workload = await client.workloads.get(name)
    except errors.NotFound:
        if until == progress.DELETED:
            return
        raise
    await wait_for(client, workload, until, timeout)


@click.command(
    cls=Command,
    examples="""\
  atoll scale hello 5
  atoll scale shop 3 --task worker --no-wait
  atoll scale hello 0             stops all of it, and remembers it
""",
)
@click.argument("name")
@click.argument("replicas", type=click.IntRange(0, 10_000))
@click.option("--task", default="", help="Needed when the workload has several.")
@output.result
@mutation
@waiting
@connected
async def scale(
    client: "AsyncClient",
    name: str,
    replicas: int,
    task: str,
    style: str,
    request_id: str,
    wait: bool,
    timeout: float,
) -> None:
    """Change the number of replicas."""
    applied = await client.workloads.scale(name, replicas, task=task, request_id=request_id)
    show_applied(style, applied)
    if wait:
        await wait_for(client, applied.workload, "", timeout)


@click.command(
    cls=Command,
    examples="""\
  atoll delete hello
  atoll delete hello web --yes --no-wait
  atoll delete -f hello.yaml --yes
""",
)
@click.argument("names", nargs=-1)
@manifests(help="Delete the workloads of these manifests.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@mutation
@waiting
@connected
async def delete(
    client: "AsyncClient",
    names: tuple[str, ...],
    documents: list[manifest.Document],
    yes: bool,
    request_id: str,
    wait: bool,
    timeout: float,
) -> None:
    """Stop workloads and forget them. Shows what would stop, and asks."""
    messages = [document.message for document in documents]
    described = [message.metadata for message in messages if isinstance(message, objects_pb2.Workload)]
    wanted = [*((name, "") for name in names), *((metadata.name, metadata.tenant) for metadata in described)]
    if not wanted:
        raise click.UsageError("name a workload, or a manifest with -f")
    found = [await client.workloads.get(name, tenant=tenant) for name, tenant in wanted]
    if not yes:
        _ask(found)
    for number, workload in enumerate(found):
        numbered = f"{request_id}.{number}" if request_id and number else request_id
        metadata = workload.metadata
        await client.workloads.delete(metadata.name, tenant=metadata.tenant, request_id=numbered)
        output.write(f"workload/{output.visible(metadata.name)} deleting\n")
    if wait:
        for workload in found:
            await wait_for(client, workload, progress.DELETED, timeout)


def _ask(workloads: list[objects_pb2.Workload]) -> None:
    """Shows the blast radius. Raises UsageError when nobody can answer."""
    for workload in workloads:
        running = workload.status.counts.started
        where = ", ".join(part.region for part in workload.status.regions) or "no region"
        output.tell(f"{output.visible(workload.metadata.name)}: {running} running replicas in {where} will stop")
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to ask; say --yes")
    click.confirm("Delete?", abort=True, err=True)
