from __future__ import annotations

import errno
import hashlib
import io
from pathlib import Path

import pytest
import torch

from lexicell import files
from lexicell.errors import InputError
from lexicell.training.checkpoints import (
    CheckpointFiles,
    checkpoint_path,
    checkpoints_in,
    fault_of,
    find_last,
    keep_last,
    step_of,
    write_checkpoint,
)

STATE = {
    "state_dict": {"w": torch.arange(64.0)},
    "optimizer_states": [],
    "lr_schedulers": [],
    "global_step": 1,
    "exposure": torch.zeros(2, 3),
    "counts_clamped": 0,
}


def written(folder: Path, *steps: int) -> list[Path]:
    for step in steps:
        write_checkpoint(checkpoint_path(folder, step), STATE | {"global_step": step})
    return [checkpoint_path(folder, step) for step in steps]


def test_a_checksum_lies_beside_it_as_sha256sum_writes_it(tmp_path: Path) -> None:
    (path,) = written(tmp_path / "checkpoints", 7)
    line = path.with_name("step-000000007.ckpt.sha256").read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  step-000000007.ckpt\n"
    assert fault_of(path) is None
    assert step_of(path) == 7
    assert torch.load(path, weights_only=True)["global_step"] == 7


def test_the_last_few_are_kept_by_step_not_by_name_or_time(tmp_path: Path) -> None:
    written(tmp_path, 1_000_000_000, 900, 20, 3)
    assert [step_of(path) for path in checkpoints_in(tmp_path)] == [1_000_000_000, 900, 20, 3]
    keep_last(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000000900.ckpt", "step-000000900.ckpt.sha256", "step-1000000000.ckpt", "step-1000000000.ckpt.sha256",
    ]  # fmt: skip


def test_one_flipped_bit_is_found(tmp_path: Path) -> None:
    (path,) = written(tmp_path, 1)
    content = bytearray(path.read_bytes())
    for place in (10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert "checksum" in str(fault_of(path))


def test_the_one_before_is_used_and_damaged_ones_are_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = written(tmp_path, 1, 2, 3)
    second.write_bytes(b"")
    third.write_bytes(third.read_bytes()[:-5])
    assert find_last(tmp_path) == first
    assert "step-000000002.ckpt: its checksum" in caplog.text
    assert "step-000000003.ckpt: its checksum" in caplog.text
    assert checkpoints_in(tmp_path) == [first]
    assert third.with_name("step-000000003.ckpt.damaged").is_file()


def test_without_a_checksum_it_must_at_least_be_readable(tmp_path: Path) -> None:
    first, second = written(tmp_path, 1, 2)
    for path in (first, second):
        path.with_name(f"{path.name}.sha256").unlink()
    assert fault_of(second) is None
    second.write_bytes(second.read_bytes()[:200])
    assert "not readable" in str(fault_of(second))
    torch.save({"something": "else"}, second)
    assert "not a checkpoint that this lexicell wrote" in str(fault_of(second))
    assert find_last(tmp_path) == first


def test_no_whole_one_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    assert find_last(tmp_path / "none") is None
    (path,) = written(tmp_path, 4)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no checkpoint is whole"):
        find_last(tmp_path)
    assert path.is_file()


def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = written(tmp_path, 5)
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = CheckpointFiles()
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        for step in (5, 6):
            writer.save_checkpoint(STATE, checkpoint_path(tmp_path, step))
            assert "No space left" in str(writer.failed)
    assert "training goes on" in caplog.text
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name, f"{path.name}.sha256"]
    assert path.read_bytes() == before
    assert find_last(tmp_path) == path
    writer.save_checkpoint(STATE, checkpoint_path(tmp_path, 6))
    assert writer.failed is None


def test_other_faults_of_writing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(number: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.os, "fsync", denied)
    with pytest.raises(PermissionError):
        CheckpointFiles().save_checkpoint(STATE, checkpoint_path(tmp_path, 1))


def test_files_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_text(tmp_path / "a.txt", "first")

    class Broken(io.BytesIO):
        def fileno(self) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda self, mode: Broken())
    with pytest.raises(OSError, match="Input/output"):
        files.write_text(tmp_path / "a.txt", "second")
    monkeypatch.undo()
    assert (tmp_path / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
