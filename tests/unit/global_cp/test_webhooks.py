"""Notices are posted over real sockets, and only to where they may go."""

import asyncio
import base64
import hashlib
import hmac
import ssl
from pathlib import Path
from typing import Any

import pytest

from atoll.clock import SystemClock
from global_cp.config import Settings
from global_cp.core.commands import Notify
from global_cp.core.events import Event, Notified
from global_cp.webhooks import Webhooks
from tests.support.pki import Pki
from tests.support.receiver import Receiver

BODY = b'{"type": "job.failed"}'


async def post(url: str, **settings: Any) -> Notified:
    """What came of one try."""
    files = {"certificate": Path("a"), "key": Path("b"), "ca": Path("c")}
    heard: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
    webhooks = Webhooks(Settings(**files, **settings), SystemClock(), post=heard.set_result)
    running = asyncio.create_task(webhooks.run())
    webhooks.send(Notify("1.1.1", "acme", "u.1.0", url, BODY))
    async with asyncio.timeout(10):
        answer = await heard
    running.cancel()
    assert isinstance(answer, Notified) and answer.number == "1.1.1"
    return answer


async def test_a_notice_is_posted_with_its_id() -> None:
    async with Receiver() as receiver:
        base = f"http://127.0.0.1:{receiver.port}/"
        assert await post(f"{base}jobs?x=1", webhooks=(base,)) == Notified("1.1.1")
    (posted,) = receiver.posted
    assert (posted.target, posted.body) == ("/jobs?x=1", BODY)
    assert posted.headers["webhook-id"] == "u.1.0" and posted.headers["content-type"] == "application/json"
    assert "webhook-signature" not in posted.headers


@pytest.mark.parametrize("spelled", ["{}", "whsec_{64}"])
async def test_a_tenant_with_a_secret_has_its_notices_signed(tmp_path: Path, spelled: str) -> None:
    secret = b"between us two"
    encoded = base64.b64encode(secret).decode()
    (tmp_path / "acme").write_text(spelled.replace("{64}", encoded).replace("{}", secret.decode()) + "\n")
    async with Receiver() as receiver:
        base = f"http://127.0.0.1:{receiver.port}/"
        assert not (await post(base, webhooks=(base,), webhook_secrets=tmp_path)).error
    (posted,) = receiver.posted
    signed = f"u.1.0.{posted.headers['webhook-timestamp']}.".encode() + BODY
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert posted.headers["webhook-signature"] == f"v1,{expected}"


@pytest.mark.parametrize("content", [b"", b"whsec_", b"whsec_\xc3\xa4", b"\xff", None])
async def test_a_secret_that_is_no_secret_sends_nothing_unsigned(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "acme"
    file.mkdir() if content is None else file.write_bytes(content)
    async with Receiver() as receiver:
        base = f"http://127.0.0.1:{receiver.port}/"
        error = (await post(base, webhooks=(base,), webhook_secrets=tmp_path)).error
    assert error.startswith("the secret in acme") and not receiver.posted


@pytest.mark.parametrize(
    ("answer", "error", "final"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "status 503", False),
        (b"HTTP/1.1 410 Gone\r\n\r\n", "status 410", True),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "status 302: redirects are not followed", False),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP", False),
        (b"HTTP/1.1 " + b"2" * 5_000, "", False),
        (b"\r\n", "the answer is not HTTP", False),
        (b"", "no answer within 0.5 s", False),
    ],
)
async def test_what_is_not_taken_is_told(answer: bytes, error: str, final: bool) -> None:
    async with Receiver(answer) as receiver:
        base = f"http://127.0.0.1:{receiver.port}/"
        found = await post(base, webhooks=(base,), webhook_timeout_s=0.5)
    assert found.error and error in found.error and found.final == final
    assert len(receiver.posted) == 1


async def test_nobody_there_is_a_failure() -> None:
    async with Receiver() as receiver:
        base = f"http://127.0.0.1:{receiver.port}/"
    assert (await post(base, webhooks=(base,))).error


async def test_a_setting_that_was_narrowed_counts_at_once() -> None:
    async with Receiver() as receiver:
        assert "is not allowed" in (await post(f"http://127.0.0.1:{receiver.port}/")).error
    assert not receiver.posted


async def test_a_name_that_leads_into_a_private_network_is_refused_unless_that_is_listed() -> None:
    async with Receiver() as receiver:
        base = f"http://localhost:{receiver.port}/"
        refused = await post(base, webhooks=(base,))
        assert "not public" in refused.error and not receiver.posted
        assert not (await post(base, webhooks=(base,), webhook_networks=("127.0.0.0/8",))).error
    assert len(receiver.posted) == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::8.8.8.8", True),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b::127.0.0.1", False),
        ("64:ff9b:1::127.0.0.1", False),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff0e::1", False),
    ],
)
async def test_what_a_name_leads_to_must_be_public_in_every_spelling(
    monkeypatch: pytest.MonkeyPatch, address: str, public: bool
) -> None:
    dialled: list[str] = []

    async def lookup(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, 1))]

    async def dial(host: str, *_: object, **__: object) -> None:
        dialled.append(host)
        raise OSError("not in a test")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    monkeypatch.setattr(asyncio, "open_connection", dial)
    found = await post("https://hooks.example/", webhooks=("https://hooks.example/",))
    assert (dialled != [], "not public" not in found.error) == (public, public)


async def test_https_is_checked_against_the_roots(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    files = pki.global_plane("hook")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    async with Receiver(tls=tls) as receiver:
        base = f"https://127.0.0.1:{receiver.port}/"
        assert "certificate" in (await post(base, webhooks=(base,))).error.lower()
        assert not (await post(base, webhooks=(base,), webhook_ca=files.ca)).error
    assert len(receiver.posted) == 1
