"""Atoll: a hierarchical, multi-region cluster scheduler on etcd.

The names below are the SDK's, found when they are first used: importing `atoll` or a core imports no gRPC.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atoll import errors
    from atoll.sdk.client import AsyncClient
    from atoll.sdk.specs import Workload
    from atoll.sdk.sync.client import Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "Workload", "__version__", "errors"]

_HOMES = {"AsyncClient": "atoll.sdk.client", "Client": "atoll.sdk.sync.client", "Workload": "atoll.sdk.specs"}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("atoll.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atoll' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
