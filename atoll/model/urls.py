"""Addresses of web servers that others have written: what one may look like, and whether a prefix covers it.

Strict on purpose: what different readers of one URL could take for different hosts or paths is no URL here. Pure.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

LONGEST = 2_048
_PLAIN = re.compile(r"[!-~]+")  # printable ASCII
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")  # a name, IPv4 or IPv6
_PORTS = {"https": 443, "http": 80}


class Url(NamedTuple):
    scheme: str
    host: str  # lower case, without brackets
    port: int
    path: str  # from "/" on
    query: str

    @property
    def target(self) -> str:
        """What is asked of the server."""
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def authority(self) -> str:
        """As the header Host has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def mistake_in_url(text: str) -> str:
    """What is wrong with it, for people; empty when nothing is."""
    found = _read(text)
    return found if isinstance(found, str) else ""


def parse_url(text: str) -> Url:
    """Of a text without a mistake."""
    found = _read(text)
    if isinstance(found, str):
        raise ValueError(found)
    return found


def covers(prefix: str, url: Url) -> bool:
    """Whether `url` is of the prefix's scheme, host and port, and its path the prefix's or below it."""
    of = parse_url(prefix)
    if (of.scheme, of.host, of.port) != (url.scheme, url.host, url.port):
        return False
    return url.path == of.path or url.path.startswith(of.path if of.path.endswith("/") else of.path + "/")


def _read(text: str) -> Url | str:
    if len(text) > LONGEST:
        return f"is longer than {LONGEST}"
    if not _PLAIN.fullmatch(text) or "\\" in text:
        return "is not a URL: it is empty, or has blanks or other characters that need encoding"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in _PORTS:
        return "does not begin with https://"
    if "@" in parts.netloc:
        return "names a user: secrets do not belong in a URL"
    if "#" in text:
        return "has a fragment"
    host = parts.hostname or ""
    if not _HOST.fullmatch(host) or port == 0:
        return "names no host"
    path = unquote(parts.path)
    if any(segment in (".", "..") for segment in path.split("/")) or "%2f" in parts.path.lower() or "\\" in path:
        return "has a path that goes up"
    return Url(parts.scheme, host, port or _PORTS[parts.scheme], parts.path or "/", parts.query)
