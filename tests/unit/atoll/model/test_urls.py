"""URLs that others have written: read strictly, covered by a prefix or not."""

import pytest

from atoll.model.urls import covers, mistake_in_url, parse_url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hooks.example.com",
        "ftp://a/",
        "https://",
        "https://a b/",
        "https://a/\n",
        "https://user:secret@a/",
        "https://a@b/",
        "https://a/#part",
        "https://a\\b/",
        "https://a:0/",
        "https://a:99999/",
        "https://a:x/",
        "https://[::1/",
        "https://a/../b",
        "https://a/%2e%2e/b",
        "https://a/b%2f..%2fc",
        "https://a/%5c../c",
        "https://ä/",
        "https://a/" + "x" * 3_000,
    ],
)
def test_what_readers_could_take_differently_is_no_url(text: str) -> None:
    assert mistake_in_url(text)


def test_a_url_is_read_with_its_defaults() -> None:
    url = parse_url("https://Hooks.Example.com/a/b?c=d")
    assert (url.scheme, url.host, url.port, url.target) == ("https", "hooks.example.com", 443, "/a/b?c=d")
    assert url.authority == "hooks.example.com"
    assert parse_url("http://[::1]:8080").authority == "[::1]:8080"
    assert parse_url("https://a").path == "/"


@pytest.mark.parametrize(
    ("prefix", "url", "good"),
    [
        ("https://a/", "https://a/b", True),
        ("https://a/b", "https://a/b", True),
        ("https://a/b", "https://a/b?x=1", True),
        ("https://a/b", "https://a/b/c", True),
        ("https://a/b", "https://a/bc", False),
        ("https://a/b/", "https://a/b", False),
        ("https://a", "https://A:443/b", True),
        ("https://a/", "http://a/", False),
        ("https://a/", "https://a:444/", False),
        ("https://a/", "https://a.evil/", False),
        ("https://a/", "https://b.a/", False),
    ],
)
def test_a_prefix_covers_its_scheme_host_port_and_path(prefix: str, url: str, good: bool) -> None:
    assert covers(prefix, parse_url(url)) == good
