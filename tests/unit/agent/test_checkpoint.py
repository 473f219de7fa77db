from pathlib import Path

import pytest

from agent.checkpoint import Checkpoint, Stored, decode, encode
from agent.core.fencing import Authority, Certificate, Saved, SlotRecord
from agent.core.runs import Exit, Rank
from atoll.errors import Unavailable
from atoll.model.slots import AttemptId
from tests.support.agent_core import SLOT, assign

RANK = Rank(1, AttemptId(2, 3))
SAVED = Saved(
    Authority(1, 2, 3),
    RANK,
    (SlotRecord(SLOT, RANK, RANK, assign(3), (Certificate(RANK, 1, Exit(-1, "Unknown", "é"), 2),)),),
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    first = Checkpoint(tmp_path)
    assert first.saved is None
    first.write(SAVED)
    first.close()
    second = Checkpoint(tmp_path)
    assert second.saved == SAVED
    assert second.incarnation == first.incarnation


def test_any_torn_or_altered_file_is_detected() -> None:
    data = encode(Stored(1, "boot", SAVED))
    assert decode(data).saved == SAVED
    damaged = [data[:size] for size in range(len(data))]
    damaged += [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    for broken in [*damaged, data + b"x"]:
        with pytest.raises(ValueError, match="it"):
            decode(broken)


def test_a_corrupt_file_is_set_aside_and_the_incarnation_rises(tmp_path: Path) -> None:
    first = Checkpoint(tmp_path)
    first.write(SAVED)
    first.close()
    (tmp_path / "checkpoint").write_bytes(b"atoll-checkpoint 1 torn")
    second = Checkpoint(tmp_path)
    assert second.saved is None
    assert second.lost
    assert second.incarnation > first.incarnation
    assert (tmp_path / "checkpoint.corrupt").read_bytes() == b"atoll-checkpoint 1 torn"


def test_a_boot_of_the_host_is_a_new_incarnation_with_the_same_memory(tmp_path: Path) -> None:
    tmp_path.joinpath("checkpoint").write_bytes(encode(Stored(2**60, "an earlier boot", SAVED)))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.incarnation == 2**60 + 1
    assert checkpoint.saved == SAVED
    checkpoint.close()
    assert Checkpoint(tmp_path).incarnation == 2**60 + 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.write(SAVED)
    (tmp_path / "checkpoint.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        checkpoint.write(Saved())
    checkpoint.close()
    assert Checkpoint(tmp_path).saved == SAVED


def test_whether_it_could_be_written_is_found_out_without_a_trace(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    checkpoint.test()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    (tmp_path / "trial").mkdir()
    with pytest.raises(OSError, match="directory"):
        checkpoint.test()
    checkpoint.close()


def test_one_agent_a_folder(tmp_path: Path) -> None:
    first = Checkpoint(tmp_path)
    with pytest.raises(Unavailable, match="another agent"):
        Checkpoint(tmp_path)
    first.close()
    Checkpoint(tmp_path).close()


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be used"):
        Checkpoint(tmp_path / "file" / "state")
