"""Where to dial and as whom: named contexts in one TOML file, `$ATOLL_CONFIG` or ~/.config/atoll/config.toml.

The environment overrides a context field by field (ATOLL_ADDRESS, ATOLL_CA, ATOLL_TOKEN, ATOLL_CERTIFICATE, ATOLL_KEY,
ATOLL_TENANT, ATOLL_ETCD_ENDPOINTS, ATOLL_ETCD_CA, …); ATOLL_CONTEXT chooses another one. The file may hold tokens, so
only its owner can read it.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from atoll import errors


@dataclass(frozen=True, slots=True)
class Connection:
    """`address` is HOST:PORT, or several of one service separated by spaces or commas. Paths are absolute or relative
    to the working folder. Either a token or a certificate with its key. `etcd_endpoints`, separated by spaces, and the
    files for TLS to them are for operators who may read the store itself."""

    address: str = ""
    ca: str = ""
    token: str = field(default="", repr=False)
    certificate: str = ""
    key: str = ""
    tenant: str = ""
    etcd_endpoints: str = ""
    etcd_ca: str = ""
    etcd_certificate: str = ""
    etcd_key: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.address.replace(",", " ").split()))


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file holds. `current` may be empty, and may name a context that is not there any more."""

    current: str = ""
    named: Mapping[str, Connection] = field(default_factory=dict)


def config_path() -> Path:
    if chosen := os.environ.get("ATOLL_CONFIG"):
        return Path(chosen)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "atoll" / "config.toml"


def load(path: Path | None = None) -> Contexts:
    """The contexts; none when there is no file. Raises Invalid when the file is not one of ours."""
    path = path or config_path()
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError) as error:
        raise errors.Invalid(f"{path} cannot be read: {error}", code="E1011") from error
    named = content.get("context", {})
    current = content.get("current", "")
    if not isinstance(named, dict) or not isinstance(current, str):
        raise errors.Invalid(f"{path}: 'current' is a name, and each context a table [context.NAME]", code="E1011")
    return Contexts(current, {name: _connection(path, name, table) for name, table in sorted(named.items())})


def save(contexts: Contexts, path: Path | None = None) -> Path:
    """Writes the file whole, readable for its owner only. Returns where."""
    path = path or config_path()
    lines = [f"current = {_quoted(contexts.current)}"]
    for name, connection in sorted(contexts.named.items()):
        lines += ["", f"[context.{_quoted(name)}]"]
        values = ((f.name, getattr(connection, f.name)) for f in fields(connection))
        lines += [f"{key} = {_quoted(value)}" for key, value in values if value]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")  # made with mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write("\n".join(lines) + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def with_context(contexts: Contexts, name: str, connection: Connection) -> Contexts:
    """`contexts` with one more, which becomes the current one."""
    return Contexts(name, {**contexts.named, name: connection})


def connection(name: str = "") -> Connection:
    """The context `name`, or the current one, with the environment's overrides. Raises Invalid: there is none."""
    contexts = load()
    name = name or os.environ.get("ATOLL_CONTEXT", "") or contexts.current
    if name and name not in contexts.named:
        known = ", ".join(contexts.named) or "none"
        raise errors.Invalid(f"there is no context {name!r} (known: {known})", hint="atoll context list", code="E1012")
    found = contexts.named[name] if name else Connection()
    overrides = {f.name: os.environ.get(f"ATOLL_{f.name.upper()}", "") for f in fields(Connection)}
    if overrides["token"]:
        found = replace(found, certificate="", key="")
    return replace(found, **{key: value for key, value in overrides.items() if value})


def _connection(path: Path, name: str, table: Any) -> Connection:
    known = {f.name for f in fields(Connection)}
    if not isinstance(table, dict) or not all(k in known and isinstance(v, str) for k, v in table.items()):
        raise errors.Invalid(f"{path}: context {name!r} holds texts named {', '.join(sorted(known))}", code="E1011")
    return Connection(**table)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes are a part of TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
