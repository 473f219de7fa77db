"""The Docker engine's API as the driver uses it: each call in a bounded pool of threads, each with a timeout.

The only module of the agent that imports the Docker SDK, and only when an Engine is made. An engine that did not answer
in time is asked by `containers` alone until it answers again; all other calls fail at once meanwhile, so that a hung
engine costs one thread. Decides nothing about runs; `events` is the only call that stays open.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from agent.drivers.container import LABEL_STATE

T = TypeVar("T")
MOST_WAITING = 1_000
EVENT_BYTES = 1 << 20
NOT_SENT = (FileNotFoundError, ConnectionRefusedError, PermissionError)


class EngineDown(Exception):
    """The engine did not answer. `sent`: it may still do what it was asked to."""

    def __init__(self, message: str, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class EngineRefused(Exception):
    """The engine said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    def __init__(self, docker_socket: Path, *, call_s: float, calls_at_once: int, pulls_at_once: int) -> None:
        self.socket = docker_socket
        self.down = ""  # why it cannot be used; empty = it answered last
        self.changed: Callable[[], None] = lambda: None  # called on the loop when `down` came or went
        self._call_s = call_s
        self._calls = ThreadPoolExecutor(calls_at_once, "docker")
        self._pulls = ThreadPoolExecutor(pulls_at_once, "docker-pull")
        self._looks = ThreadPoolExecutor(1, "docker-look")
        self._waiting = 0
        self._version = "auto"
        self._local = threading.local()

    # ------------------------------------------------------------------ calls

    async def containers(self, state: str) -> list[dict[str, Any]]:
        """All of this state folder, those that have ended too. Asked also while the engine is down."""
        labels = {"label": f"{LABEL_STATE}={state}"}
        answer: list[dict[str, Any]] = await self._run(self._looks, lambda c: c.containers(all=True, filters=labels))
        return answer

    async def images(self) -> list[dict[str, Any]]:
        """All that are here, with their names."""
        answer: list[dict[str, Any]] = await self._call(lambda c: c.images())
        return answer

    async def create(self, name: str, request: dict[str, Any]) -> str:
        """The container's id."""
        return str((await self._call(lambda c: c.create_container_from_config(request, name)))["Id"])

    async def start(self, container: str) -> None:
        await self._call(lambda c: c.start(container))

    async def signal(self, container: str, signal: str) -> None:
        await self._call(lambda c: c.kill(container, signal))

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """None when there is none of that id or name."""
        found: dict[str, Any] | None = await self._unless_missing(lambda c: c.inspect_container(container))
        return found

    async def remove(self, container: str) -> None:
        """Kills it if need be. Done when it returns, and when there was none."""
        deadline = time.monotonic() + self._call_s
        while True:
            try:
                await self._unless_missing(lambda c: c.remove_container(container, v=True, force=True))
                return
            except EngineRefused as refused:
                if refused.status != 409 or time.monotonic() > deadline:  # 409: its removal is under way
                    raise
            await asyncio.sleep(0.05)

    async def has_file(self, container: str, path: str) -> bool:
        """Whether this path exists in the container's files."""

        def head(client: Any) -> bool:
            url = f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
            answer = client.head(url, params={"path": path}, timeout=self._call_s)
            if answer.status_code not in (200, 404):
                raise EngineRefused(answer.status_code, f"{path} cannot be looked up")
            return bool(answer.status_code == 200)

        return await self._call(head)

    async def output(self, container: str, tail_lines: int | None, since_ns: int) -> bytes:
        """Its log as the engine frames it, each entry with its time; nothing when there is no such container."""

        def get(client: Any) -> bytes:
            url = f"{client.base_url}/v{client.api_version}/containers/{container}/logs"
            params: dict[str, Any] = {"stdout": 1, "stderr": 1, "timestamps": 1}
            if tail_lines is not None:
                params["tail"] = tail_lines
            if since_ns:
                params["since"] = f"{since_ns // 10**9}.{since_ns % 10**9:09}"
            answer = client.get(url, params=params, timeout=self._call_s)
            return bytes(answer.content) if answer.status_code == 200 else b""

        return await self._call(get)

    async def begin_exec(self, container: str, command: list[str]) -> str:
        """Runs it beside the container's own process; the exec's id."""

        def begin(client: Any) -> str:
            made = str(client.exec_create(container, command, stdout=False, stderr=False)["Id"])
            client.exec_start(made, detach=True)
            return made

        return await self._call(begin)

    async def inspect_exec(self, exec_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self._call(lambda c: c.exec_inspect(exec_id))
        return answer

    async def pull(self, image: str, deadline_s: float) -> None:
        """From the registry that the name says. Raises EngineRefused with the registry's word."""
        end = time.monotonic() + deadline_s

        def pull(client: Any) -> None:
            for step in client.pull(image, stream=True, decode=True):
                if "error" in step:
                    raise EngineRefused(404, str(step["error"]))
                if time.monotonic() > end:
                    raise EngineRefused(504, f"{image} is not here after {deadline_s:.0f} s of pulling")

        await self._run(self._pulls, pull)

    async def events(self, state: str) -> AsyncIterator[dict[str, Any]]:
        """Ends of containers of this state folder as they happen; over when the engine goes. Raises OSError."""
        wanted = {"type": ["container"], "event": ["die", "destroy"], "label": [f"{LABEL_STATE}={state}"]}
        reader, writer = await asyncio.open_unix_connection(str(self.socket), limit=EVENT_BYTES)
        try:
            target = f"/events?filters={quote(json.dumps(wanted))}"
            writer.write(f"GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            while line := await reader.readline():
                with contextlib.suppress(ValueError):  # the head of the answer
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event
        finally:
            writer.close()

    def close(self) -> None:
        for pool in (self._calls, self._pulls, self._looks):
            pool.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ how a call is made

    async def _unless_missing(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return await self._call(ask)
        except EngineRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def _call(self, ask: Callable[[Any], T]) -> T:
        if self.down:
            raise EngineDown(self.down, sent=False)
        if self._waiting >= MOST_WAITING:
            raise EngineDown(f"{self._waiting} calls wait for the Docker engine", sent=False)
        return await self._run(self._calls, ask)

    async def _run(self, pool: ThreadPoolExecutor, ask: Callable[[Any], T]) -> T:
        self._waiting += 1
        try:
            answer = await asyncio.get_running_loop().run_in_executor(pool, self._ask, ask)
        except EngineDown as down:
            self._note(str(down))
            raise
        except EngineRefused:
            self._note("")
            raise
        else:
            self._note("")
            return answer
        finally:
            self._waiting -= 1

    def _note(self, down: str) -> None:
        if bool(down) != bool(self.down):
            self.down = down
            self.changed()

    def _ask(self, ask: Callable[[Any], T]) -> T:
        """In a thread of the pool."""
        import docker.errors
        import requests

        try:
            return ask(self._client())
        except docker.errors.APIError as error:
            raise EngineRefused(error.status_code or 0, str(error.explanation or error)) from error
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            self._local.client = None
            sent = not _chain(error, NOT_SENT)
            why = f"does not answer within {self._call_s:g} s" if sent else "does not answer"
            raise EngineDown(f"the Docker engine at {self.socket} {why}: {_shortly(error)}", sent) from error
        except (KeyError, TypeError, ValueError) as error:  # the SDK's, of an answer that is not as documented
            raise EngineRefused(0, f"what answers at {self.socket} is not understood: {_shortly(error)}") from error

    def _client(self) -> Any:
        """One a thread: the SDK's sessions are not made for several."""
        client = getattr(self._local, "client", None)
        if client is None:
            import docker

            address = f"unix://{self.socket}"
            client = docker.APIClient(base_url=address, version=self._version, timeout=self._call_s)
            self._version = client.api_version
            self._local.client = client
        return client


def _chain(error: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Whether one of these is behind it."""
    seen: list[object] = [error]
    for one in seen:
        if isinstance(one, kinds):
            return True
        if isinstance(one, BaseException) and len(seen) < 50:
            seen += [*one.args, one.__cause__, one.__context__]
    return False


def _shortly(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
