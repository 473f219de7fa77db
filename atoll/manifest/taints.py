"""Taints as people write them: KEY=VALUE:EFFECT, KEY:EFFECT, and with a `-` behind for one that is to go."""

from atoll.api.v1.objects_pb2 import Taint, TaintEffect
from atoll.manifest import scalars
from atoll.model.names import mistake_in_label_key, mistake_in_label_value


class TaintError(ValueError):
    """Says what is wrong with the text."""


def parse_taint(text: str) -> tuple[Taint, bool]:
    """The taint, and whether it is to go. The effect may be left out for one that goes: then every effect. Raises
    TaintError."""
    removes = text.endswith("-")
    named, colon, effect = text.removesuffix("-").partition(":")
    key, _, value = named.partition("=")
    if mistake := mistake_in_label_key(key) or mistake_in_label_value(value):
        raise TaintError(mistake)
    if not colon and not removes:
        raise TaintError(f"{text!r} names no effect: KEY=VALUE:NoSchedule, PreferNoSchedule or NoExecute")
    try:
        number = scalars.parse_enum(effect, TaintEffect.DESCRIPTOR) if colon else 0
    except scalars.ScalarError as error:
        raise TaintError(str(error)) from None
    return Taint(key=key, value=value, effect=TaintEffect.ValueType(number)), removes


def format_taint(taint: Taint) -> str:
    effect = TaintEffect.Name(taint.effect).removeprefix("TAINT_EFFECT_").title().replace("_", "")
    return f"{taint.key}={taint.value}:{effect}" if taint.value else f"{taint.key}:{effect}"
