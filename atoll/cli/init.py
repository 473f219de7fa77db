"""`init`: a commented manifest to start from; examples/hello.yaml is its output."""

from pathlib import Path

import click

from atoll import errors
from atoll.cli import output
from atoll.cli.command import Command

MANIFEST = """\
# Three replicas of a small program, as processes on the nodes.
#   atoll apply -f hello.yaml      create it and wait until it serves
#   atoll why hello                where each replica is, and why there
#   atoll logs hello/0 -f          what a replica writes
apiVersion: atoll/v1
kind: Workload
metadata:
  name: hello
  # tenant: default              # else the tenant of your context
  labels: {app: hello}
spec:
  replicas: 3
  # type: job                    # run to the end once; the default is a service, which runs until it is deleted
  # priority: high               # best-effort, low, default, high, real-time
  # onQuota: reject              # refuse at once instead of waiting for quota
  # regions: [eu-west, us-east]  # allowed regions, the preferred one first; the default is any
  task:
    command: [sh, -c, 'while true; do echo "hello from $ATOLL_SLOT, it is $(date +%T)"; sleep 1; done']
    resources: {cpu: 100m, memory: 64Mi}
    # env: {GREETING: hi}
    # ports: [8080]
    # readiness: {http: {port: 8080, path: /}, interval: 2s}
    # requires: gpu=true         # only nodes with this label
    # prefers: zone=us-east      # rather nodes with this label
    terminationGrace: 2s
"""


@click.command(cls=Command, examples="  atoll init\n  atoll init deploy/hello.yaml\n  atoll init -\n")
@click.argument("file", default="hello.yaml")
def init(file: str) -> None:
    """Write a commented manifest. FILE is hello.yaml, or - for standard output. Overwrites nothing."""
    if file == "-":
        output.write(MANIFEST)
        return
    try:
        with Path(file).open("x") as target:
            target.write(MANIFEST)
    except FileExistsError:
        raise errors.Invalid(f"{output.visible(file)} exists already") from None
    except OSError as error:
        raise errors.Invalid(f"{output.visible(file)} cannot be written: {error.strerror}") from None
    output.tell(f"wrote {output.visible(file)}\nTry   atoll apply -f {output.visible(file)}")
