"""Logs and metrics of a program: JSON lines on stderr without secrets, and a Prometheus port.

(gRPC's own core writes to stderr too, as plain text; GRPC_VERBOSITY=NONE in the environment silences it.)

Redaction is the last step before a line leaves: whatever looks like a token or a private key is cut out of every
string, and values under telling names are not shown at all.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import start_http_server

from atoll.errors import Unavailable

_SECRET = re.compile(
    r"atoll-(?:user|join)\.[A-Za-z0-9._-]+|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
_SECRET_NAMES = frozenset({"token", "join_token", "secret", "authorization", "password", "private_key", "key_pem"})
_HIDDEN = "[redacted]"


def start_logging(program: str, level: str) -> None:
    """One JSON object a line on stderr, with `program` in each. `level`: debug, info, warning or error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            redact,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(program=program)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the event without secrets."""
    return {key: _HIDDEN if key in _SECRET_NAMES else _clean(value) for key, value in event.items()}


def _clean(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {key: _HIDDEN if key in _SECRET_NAMES else _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return _SECRET.sub(_HIDDEN, str(value))


class MetricsPort:
    """Serves the process's metrics over HTTP, from a thread of its own, until closed."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            self._server: WSGIServer
            self._server, self._thread = start_http_server(int(port), host.strip("[]"))
        except (OSError, ValueError) as error:
            raise Unavailable(f"cannot serve metrics on {address!r}: {error}", code="E5003") from error
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
