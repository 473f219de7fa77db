"""Tokens: exact form, never printed, compared whole."""

import pytest

from atoll import tokens

CA = "0f" * 32


def test_what_was_minted_is_read_back() -> None:
    user, join = tokens.mint_user(), tokens.mint_join(CA)
    assert tokens.parse_user(user.text()) == user
    assert tokens.parse_join(join.text()) == join
    assert join.text().startswith(f"atoll-join.{CA}.{join.id}.")


def test_each_is_fresh_and_long_enough() -> None:
    minted = [tokens.mint_user() for _ in range(100)]
    assert len({token.id for token in minted}) == len({token.secret for token in minted}) == 100
    assert all(len(token.secret) * 6 >= 256 for token in minted)


def test_the_hash_knows_its_token_and_no_other() -> None:
    token = tokens.mint_user()
    assert token.matches(token.hash())
    assert not token.matches(tokens.mint_user().hash())
    assert not token.matches(b"")
    assert token.secret.encode() not in token.hash()


def test_a_token_never_prints_its_secret() -> None:
    token = tokens.mint_join(CA)
    for shown in (repr(token), str(token), f"{token}", f"{[token]}"):
        assert token.secret not in shown


@pytest.mark.parametrize("kind", ["user", "join"])
def test_nothing_but_the_exact_form_is_a_token(kind: str) -> None:
    good = tokens.mint_user().text() if kind == "user" else tokens.mint_join(CA).text()
    parse = tokens.parse_user if kind == "user" else tokens.parse_join
    other = tokens.parse_join if kind == "user" else tokens.parse_user
    assert other(good) is None
    head, secret = good.rpartition(".")[::2]
    for text in (
        "",
        " " + good,
        good + "\n",
        good + "A",
        good[:-1],
        good.upper(),
        head,
        f"{head}.{secret[:-1]}/",
        "a" * 10_000,
    ):
        assert parse(text) is None, text
