"""Names that may stand in a key, a container's name or a label. One strict pattern at every border."""

import re

NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]{0,61}[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
REQUEST_ID = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,62}[A-Za-z0-9])?")
TRUSTED = "trusted/"  # labels with this prefix are set by join tokens and operators only


def mistake_in_name(name: str) -> str | None:
    """What is wrong with `name` as the name of an object, or None."""
    return _mistake(NAME, name, "lower-case letters, digits and '-', 1 to 63 of them, letter or digit at both ends")


def mistake_in_label_key(key: str) -> str | None:
    return _mistake(LABEL_KEY, key, "an optional prefix and '/', then letters, digits, '-', '_' and '.', at most 63")


def mistake_in_label_value(value: str) -> str | None:
    return _mistake(LABEL_VALUE, value, "letters, digits, '-', '_' and '.', at most 63, or nothing")


def mistake_in_request_id(request_id: str) -> str | None:
    return _mistake(REQUEST_ID, request_id, "letters, digits, '-', '_' and '.', 1 to 64 of them")


def _mistake(pattern: re.Pattern[str], text: str, rule: str) -> str | None:
    if pattern.fullmatch(text):
        return None
    shown = text if len(text) <= 40 else text[:40] + "…"
    alike = next(
        (f" ({c!r} is U+{ord(c):04X})" for c in text if not c.isascii()), ""
    )  # it may look like an allowed one
    return f"{shown!r} is not allowed: {rule}{alike}" if text else f"is missing: {rule}"
