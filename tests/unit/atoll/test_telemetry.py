"""Redaction: whatever is logged, secrets are not."""

import json

import pytest

from atoll import tokens
from atoll.errors import Unavailable
from atoll.identity import node_request
from atoll.telemetry import MetricsPort, redact

USER, JOIN, KEY = tokens.mint_user(), tokens.mint_join("0f" * 32), node_request()[0].decode()


@pytest.mark.parametrize(
    "event",
    [
        {"event": f"refused {USER.text()}"},
        {"event": "x", "nested": {"list": [("deep", f"Bearer {JOIN.text()} end")]}},
        {"event": "x", "authorization": USER.secret, "nested": [{"token": JOIN.secret}]},
        {"event": KEY, "error": ValueError(USER.text()), "cut": KEY[:100]},
    ],
)
def test_secrets_are_cut_out(event: dict[str, object]) -> None:
    shown = json.dumps(redact(None, "info", dict(event)))
    for secret in (USER.secret, JOIN.secret, KEY.splitlines()[1]):
        assert secret not in shown
    assert "[redacted]" in shown


def test_the_rest_stays_as_it_is() -> None:
    event = {"event": "bound slot", "n": 3, "ok": True, "none": None, "f": 1.5, "list": ["a", {"key": "v"}]}
    assert redact(None, "info", dict(event)) == event


def test_a_taken_metrics_port_is_told() -> None:
    port = MetricsPort("127.0.0.1:0")
    try:
        with pytest.raises(Unavailable, match="cannot serve metrics"):
            MetricsPort(port.address)
    finally:
        port.close()
