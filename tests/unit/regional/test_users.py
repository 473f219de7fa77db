from pathlib import Path

from atoll.api.v1 import objects_pb2, regional_pb2
from regional.users import Users


def tokens(*ids: str) -> regional_pb2.TokenSet:
    return regional_pb2.TokenSet(tokens=[objects_pb2.UserToken(id=i, hash=b"h", name=i) for i in ids])


def test_a_set_replaces_the_one_before_and_outlives_the_process(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.pb")
    users.replace(tokens("a", "b"))
    users.replace(tokens("b"))
    again = Users(tmp_path / "users.pb")
    for known in (users, again):
        assert known.find("a") is None
        assert known.find("b") == tokens("b").tokens[0]
    assert (tmp_path / "users.pb").stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_counts_as_no_users(tmp_path: Path) -> None:
    (tmp_path / "users.pb").write_bytes(b"\xff\xff\xff")
    assert Users(tmp_path / "users.pb").find("a") is None


def test_a_revoked_token_is_gone_even_when_the_disk_refuses(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.pb")
    users.replace(tokens("a"))
    (tmp_path / "users.new").mkdir()
    users.replace(tokens())
    assert users.find("a") is None
