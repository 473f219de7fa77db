"""A container that exists and can be started: its image pulled when it is not here, its command found in it."""

from collections.abc import Callable
from typing import Any

from agent.config import DockerSettings
from agent.drivers.container import Refused
from agent.drivers.engine import Engine, EngineRefused

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def create(
    engine: Engine, name: str, request: dict[str, Any], settings: DockerSettings, delayed: Callable[[str], None]
) -> str:
    """Its id; `delayed` hears why it takes long. Raises Refused, EngineRefused, EngineDown; what was created may be
    there then."""
    try:
        made = await engine.create(name, request)
    except EngineRefused as refused:
        if refused.status != 404 or settings.pull == "never":
            raise
        delayed(f"pulling {request['Image']}")
        await _pull(engine, request["Image"], settings.pull_s)
        made = await engine.create(name, request)
    await _find_command(engine, made)
    return made


async def _pull(engine: Engine, image: str, deadline_s: float) -> None:
    try:
        await engine.pull(image, deadline_s)
    except EngineRefused as refused:
        why = " ".join(str(refused).split())
        raise Refused(f"ImageMissing: {image} is not here and cannot be pulled: {why}") from refused


async def _find_command(engine: Engine, container: str) -> None:
    """A container's first process is the engine's init: it would start even where the command is missing."""
    info = await engine.inspect(container) or {}
    program = str(info.get("Path", ""))
    environment = dict(entry.partition("=")[::2] for entry in info.get("Config", {}).get("Env") or ())
    folders = [""] if "/" in program else [f"{f}/" for f in environment.get("PATH", DEFAULT_PATH).split(":") if f]
    for folder in folders:
        if program.startswith(("./", "../")) or await engine.has_file(container, f"{folder}{program}"):
            return
    raise EngineRefused(404, f"exec: {program!r}: no such file or directory in the image")
