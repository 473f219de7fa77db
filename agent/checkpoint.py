"""The agent's memory on disk: one small file, replaced as a whole, and one lock on its folder.

A write is durable when it returns: temporary file, fsync, rename, fsync of the folder. A torn or altered file is
detected by its digest and set aside as `checkpoint.corrupt`; nothing of it is believed. The incarnation of the node is
kept here: it rises when the host has booted or this memory was lost, so that the region knows that nothing it once
started here may be assumed.
"""

import fcntl
import hashlib
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from agent.core.fencing import Saved
from agent.drivers.proc import boot_id
from atoll.api.v1 import agent_pb2
from atoll.errors import Unavailable

_HEAD = b"atoll-checkpoint 1 "
_TRIAL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    incarnation: int
    boot_id: str
    saved: Saved


def _to_plain(value: Any) -> Any:
    if isinstance(value, agent_pb2.Assign):
        return value.SerializeToString(deterministic=True)
    raise TypeError(type(value).__name__)


def _from_plain(kind: type[Any], value: Any) -> Any:
    if kind is agent_pb2.Assign:
        return agent_pb2.Assign.FromString(value)
    raise TypeError(kind.__name__)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_DECODER = msgspec.msgpack.Decoder(Stored, dec_hook=_from_plain)


def encode(stored: Stored) -> bytes:
    body = _ENCODER.encode(stored)
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode(data: bytes) -> Stored:
    """Raises ValueError, saying what is wrong."""
    head, newline, body = data.partition(b"\n")
    if not newline or not head.startswith(_HEAD):
        raise ValueError("it does not begin like a checkpoint")
    if head.removeprefix(_HEAD) != hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its digest is wrong: it is torn or was altered")
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ValueError(f"it has another form: {error}") from error


class Checkpoint:
    """Of one agent process, which holds the lock until it ends. `write` may be called from any thread."""

    def __init__(self, state_dir: Path) -> None:
        """Raises Unavailable when the folder cannot be used, or another agent uses it."""
        self._folder = state_dir
        self._path = state_dir / "checkpoint"
        self._writing = threading.Lock()
        self._closed = False
        self.lost = ""  # why an earlier checkpoint could not be believed
        try:
            state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"another agent runs on {state_dir}") from error
        except OSError as error:
            raise Unavailable(f"the state folder {state_dir} cannot be used: {error}") from error
        found = self._read()
        self.saved = found.saved if found else None
        self._stored = found or Stored(time.time_ns() // 1_000_000, boot_id(), Saved())
        if self._stored.boot_id != boot_id():
            risen = max(self._stored.incarnation + 1, time.time_ns() // 1_000_000)
            self._stored = replace(self._stored, incarnation=risen, boot_id=boot_id())
        if self._stored != found:
            self._write_first()

    @property
    def incarnation(self) -> int:
        return self._stored.incarnation

    def write(self, saved: Saved) -> None:
        """Durable when it returns. Raises OSError; then the old one or the new one is there, whole."""
        with self._writing:
            if self._closed:
                raise OSError("the checkpoint is closed")
            self._stored = replace(self._stored, saved=saved)
            replace_durably(self._path, encode(self._stored))

    def test(self) -> None:
        """Raises OSError when a checkpoint could not be written now. Nothing is changed."""
        with self._writing:
            if self._closed:
                return
            trial = self._path.with_name("trial")
            try:
                with trial.open("wb") as file:
                    file.write(bytes(_TRIAL_BYTES))
                    file.flush()
                    os.fsync(file.fileno())
            finally:
                trial.unlink(missing_ok=True)

    def close(self) -> None:
        """Gives up the lock, after a write under way: the next agent must not find its file replaced by this one."""
        with self._writing:
            self._closed = True
            os.close(self._lock)

    def _write_first(self) -> None:
        try:
            replace_durably(self._path, encode(self._stored))
        except OSError as error:
            raise Unavailable(f"the checkpoint in {self._folder} cannot be written: {error}") from error

    def _read(self) -> Stored | None:
        try:
            return decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error}") from error
        except ValueError as error:
            self.lost = str(error)
            self._path.replace(self._path.with_suffix(".corrupt"))
            return None


def replace_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """The file holds `data`, whole, also after a crash of the host. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
    finally:
        os.close(file)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """The names in this folder survive a crash of the host. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
