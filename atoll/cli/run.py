"""`run`: a workload with one task, said in options instead of a manifest."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from atoll.cli import output
from atoll.cli.command import Command, section
from atoll.cli.session import connected
from atoll.cli.workloads import mutation, show_applied, wait_for, waiting
from atoll.sdk import specs

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

_TASK = {  # by option: where it stands in a manifest's task
    "limits": ("resources", "limits"),
    "prefers": ("prefers",),
    "tolerate": ("tolerations",),
    "topology_spread": ("topologySpread",),
    "colocate_with": ("colocateWith",),
    "avoid_colocating": ("avoidColocating",),
    "gang": ("gang",),
    "restart": ("restart",),
    "termination_grace": ("terminationGrace",),
    "min_ready": ("minReady",),
}
_SPEC = {"run_class": ("runClass",), "bounded": ("bounded",), "on_quota": ("onQuota",), "schedule": ("schedule",)}


def _several(*names: str, **attributes: Any) -> Callable[[FC], FC]:
    return click.option(*names, multiple=True, **attributes)


def _of_the_machine(verb: FC) -> FC:
    for option in (
        _several("--gpu-model", "gpu_models", metavar="MODEL", help="These GPUs will do: A100."),
        click.option("--gpu", default="", metavar="AMOUNT", help="2: whole devices; 500m: a part of one."),
        click.option("--disk", default="", metavar="AMOUNT", help="For example 1Gi."),
        click.option("--memory-limit", default="", metavar="AMOUNT", help="What it may use; else --memory."),
        click.option("--cpu-limit", default="", metavar="AMOUNT", help="What it may use; else --cpu."),
        click.option("--memory", default="64Mi", show_default=True, metavar="AMOUNT", help="What it is promised."),
        click.option("--cpu", default="100m", show_default=True, metavar="AMOUNT", help="What it is promised."),
    ):
        verb = option(verb)
    return verb


def _of_placement(verb: FC) -> FC:
    for option in (
        click.option("--gang", is_flag=True, help="All replicas are placed at once, or none."),
        _several("--avoid-colocating", metavar="NAME|RULE", help="No node with replicas of this workload, or labels."),
        _several("--colocate-with", metavar="NAME|RULE", help="A node with replicas of this workload, or labels."),
        _several("--topology-spread", metavar="LABEL", help="Evenly over zones, racks: zone."),
        _several("--tolerate", metavar="TAINT", help="dedicated, dedicated=db or dedicated=db:NoSchedule."),
        _several("--prefers", metavar="RULE", help="zone=a: better there."),
        _several("--requires", metavar="RULE", help="zone=a or '!old': what its nodes must have."),
        click.option("--strategy", default="", metavar="NAME", help="bin-pack when left out; spread, balanced, …"),
        _several("--residency", metavar="RULE", help="What its regions must have: 'jurisdiction in (eu)'."),
        click.option("--spread", default="", metavar="HOW", help="Over regions: preferred, even or cheapest."),
        _several("--region", "regions", metavar="NAME", help="Allowed regions, the preferred one first."),
    ):
        verb = option(verb)
    return verb


def _of_life(verb: FC) -> FC:
    for option in (
        click.option("--min-ready", default="", metavar="TIME", help="Healthy when ready for so long; 1s."),
        click.option(
            "--termination-grace", default="", metavar="TIME", help="From being asked to stop to the kill; 10s."
        ),
        click.option("--restart", default="", metavar="WHEN", help="always, on-failure or never."),
        click.option("--bounded", default="", metavar="TIME", help="Of class bounded: how long it runs on alone."),
        click.option("--run-class", default="", metavar="CLASS", help="keep, bounded or exclusive."),
        click.option("--on-quota", default="", metavar="WHAT", help="Beyond the quota: queue (default) or reject."),
        click.option("--priority", default="", metavar="NAME", help="best-effort, low, default, high or real-time."),
    ):
        verb = option(verb)
    return verb


def _of_jobs(verb: FC) -> FC:
    for name, example in (
        ("time-to-live", "1h: deleted so long after its end"),
        ("active-deadline", "30m: stopped so long after its begin"),
        ("not-after", "now+3h: stopped then"),
        ("not-before", "now+10m, or RFC 3339"),
        ("deadline", "now+2h: orders the queue"),
        ("estimate", "10m: how long one replica runs"),
    ):
        verb = click.option(f"--{name}", default="", metavar="TIME", help=f"{example}.")(verb)
    verb = click.option("--schedule", default="", metavar="CRON", help="'30 2 * * mon-fri': a run each time, in UTC.")(
        verb
    )
    verb = click.option("--speculation", default=0, type=click.IntRange(0), metavar="PERCENT", help=_COPY)(verb)
    verb = click.option("--retries", type=click.IntRange(0), metavar="N", help="Tries of a replica after its first.")(
        verb
    )
    for name, text in (("completions", "So many must succeed"), ("parallelism", "So many replicas at once")):
        verb = click.option(f"--{name}", default=0, type=click.IntRange(0), metavar="N", help=f"{text}; else all.")(
            verb
        )
    return click.option("--job", is_flag=True, help="Run to the end once instead of forever.")(verb)


_COPY = "200: a second copy of what takes twice the median; the first result counts."


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": False},
    examples="""\
  atoll run hello --replicas 3 --cpu 100m --memory 64Mi -- sh -c 'while true; do date; sleep 1; done'
  atoll run web --memory 64Mi --http 8080/ -- python3 -m http.server 8080
  atoll run box --image atoll-busybox:1 --port 8080 -- httpd -f -p 8080    as a container
  atoll run api --replicas 6 --cpu 250m --cpu-limit 1 --topology-spread zone --requires pool=general -- ./api
  atoll run import --job -- sh -c 'echo once'
  atoll run parts --job --count 8 --parallelism 3 --retries 2 --deadline now+2h -- sh -c './part $ATOLL_INDEX'
  atoll run train --job --count 4 --gang --gpu 2 -- ./train
""",
)
@click.argument("name")
@click.argument("command", nargs=-1)
@click.option("--replicas", "--count", type=click.IntRange(0, 10_000), metavar="N", help="1, or the completions.")
@click.option("--image", default="", help="Run it as a container of this image; COMMAND may be left out then.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Of the replicas; may be repeated, as all lists here.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Of the workload: get -l finds it.")
@click.option("--port", "ports", multiple=True, type=click.IntRange(1, 65_535), metavar="PORT", help="Publish it.")
@click.option("--http", default="", metavar="PORT/PATH", help="Publish this port and ask this path until it answers.")
@section("What it gets", _of_the_machine)
@section("Where it runs", _of_placement)
@section("How it lives", _of_life)
@section("Jobs", _of_jobs)
@output.result
@mutation
@waiting
@connected
async def run(
    client: "AsyncClient",
    name: str,
    command: tuple[str, ...],
    env: tuple[str, ...],
    labels: tuple[str, ...],
    style: str,
    request_id: str,
    wait: bool,
    timeout: float,
    **spelled: Any,
) -> None:
    """Run a command or an image. The same as applying a manifest with one task, in its words."""
    spec = specs.Workload(
        name=name,
        command=command,
        env=_pairs("--env", env),
        labels=_pairs("--label", labels),
        more=_more(spelled),
        **spelled,
    )
    applied = await client.workloads.apply(spec, request_id=request_id)
    show_applied(style, applied)
    if wait:
        await wait_for(client, applied.workload, "", timeout)


def _pairs(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not separator for _, separator, _ in pairs):
        raise click.BadParameter(f"{option} wants NAME=VALUE")
    return {key: value for key, _, value in pairs}


def _more(spelled: dict[str, Any]) -> dict[str, Any]:
    """What is taken out of the options because only a manifest has a word for it, in its shape."""
    limits = {"cpu": spelled.pop("cpu_limit"), "memory": spelled.pop("memory_limit")}
    spelled["limits"] = {name: amount for name, amount in limits.items() if amount}
    spec: dict[str, Any] = {}
    task: dict[str, Any] = {}
    if percent := spelled.pop("speculation"):
        task["speculation"] = {"percent": percent}
    for words, place in ((_TASK, task), (_SPEC, spec)):
        for option, (*outer, last) in words.items():
            if value := spelled.pop(option):
                at = place
                for word in outer:
                    at = at.setdefault(word, {})
                at[last] = list(value) if isinstance(value, tuple) else value
    return {**spec, "task": task} if task or spec else {}
