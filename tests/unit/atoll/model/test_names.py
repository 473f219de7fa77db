"""What is said of a name that is not allowed."""

from atoll.model.names import mistake_in_name


def test_a_letter_that_only_looks_allowed_is_named() -> None:
    assert "('а' is U+0430)" in str(mistake_in_name("аpple"))  # noqa: RUF001 - the first letter is Cyrillic
    assert "U+" not in str(mistake_in_name("a_b"))


def test_a_long_name_is_cut() -> None:
    assert len(str(mistake_in_name("x" * 10_240))) < 200
