"""The log's writer: what cannot be written is counted, and said in the first record after."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from wghsm.audit import AuditLog, Event, Limits, decode
from wghsm.auditor.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOW = 1_760_000_000_000_000
USE = Event(kind="key.use", operation="accept")


def opener(folder: Path) -> partial[AuditLog]:
    return partial(AuditLog, folder, "wg0", "gateway", limits=Limits())


def kinds(lines: list[bytes]) -> list[str]:
    return [decode(line).kind for line in lines]


def test_what_a_full_disk_refuses_is_said_in_the_first_record_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(opener(tmp_path))
    assert kinds(writer.write([USE], NOW)) == ["start", "key.use"]
    write = os.write

    def full(descriptor: int, data: memoryview) -> int:
        if len(data) > 10:
            return write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert writer.write([USE, USE], NOW + 1) == []
        assert writer.write([USE], NOW + 2) == []
        assert writer.write([], NOW + 3) == []
        assert "No space left" in writer.failing
        assert not writer.due(NOW + 10**9)
    lines = writer.write([USE], NOW + 4)
    assert kinds(lines) == ["gap", "key.use"]
    gap = decode(lines[0])
    assert (gap.operation, gap.detail["count"]) == ("unwritten", 3)
    assert "No space left" in str(gap.detail["text"])
    assert (writer.failing, writer.unwritten, writer.records) == ("", 3, 4)
    # Nothing torn is left in between.
    (file,) = tmp_path.glob("gateway.*.jsonl")
    assert kinds(file.read_bytes().splitlines()) == ["start", "key.use", "gap", "key.use"]
    writer.close()


def test_a_folder_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    writer = Writer(opener(folder), "it could not be made: Read-only file system")
    assert writer.write([USE], NOW) == []
    assert writer.failing == "it could not be made: Read-only file system"
    assert writer.statement(NOW) is None
    folder.mkdir()
    assert kinds(writer.write([], NOW + 1)) == ["start", "gap"]
    assert writer.failing == ""
    writer.close()


def test_unsealed_counts_from_the_beginning_of_this_process(tmp_path: Path) -> None:
    for _ in range(2):
        writer = Writer(opener(tmp_path))
        writer.write([USE, USE], NOW)
        before = writer.unsealed
        assert before == writer.records
        statement = writer.statement(NOW)
        assert statement is not None
        assert kinds(writer.seal(statement, bytes(64), "00" * 32, "ed25519", "token 1", NOW)) == ["checkpoint"]
        # The checkpoint itself is under no seal yet.
        assert writer.unsealed == 1
        assert not writer.due(NOW + 1)
        writer.close()
