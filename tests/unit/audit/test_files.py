"""The files of a log: its end is found again, whatever a crash has left; they rotate, and go when they are old."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.audit.support import DAY, NOW, SECOND, Signer, folder, lines_of, use, write_log
from wghsm.audit import AuditLog, Event, Limits, LogBusyError, LogError, decode
from wghsm.audit.files import list_files


def check_chain(lines: list[bytes]) -> None:
    prev = None
    for line in lines:
        record = decode(line)
        assert prev is None or record.prev == prev
        prev = hashlib.sha256(line).hexdigest()


def test_a_log_is_written_and_goes_on() -> None:
    with folder() as path:
        with AuditLog(path, "wg0", "gateway", NOW, identity=bytes(16)) as log:
            assert [decode(line).kind for line in log.opening] == ["start"]
            first = log.append([use(1), use(2)], NOW)
        with AuditLog(path, "wg0", "gateway", NOW) as log:
            assert log.opening == []
            second = log.append([use(3)], NOW)
        assert [decode(line).seq for line in [*first, *second]] == [1, 2, 3]
        assert decode(second[0]).stream == "wg0/gateway/" + "00" * 16
        assert (path / "gateway.000001.jsonl").stat().st_mode & 0o777 == 0o640
        check_chain(lines_of(path))


def test_two_logs_share_a_folder() -> None:
    with folder() as path:
        write_log(path, None, [3])
        write_log(path, None, [2], log="commands")
        assert [(log, len(files)) for log, files in list_files(path).items()] == [("commands", 1), ("gateway", 1)]


@given(st.binary(min_size=1, max_size=300) | st.just(b"\0" * 70_000), st.booleans(), st.integers(1, 30))
def test_what_a_crash_left_is_set_aside_and_said(rubbish: bytes, half: bool, records: int) -> None:
    with folder() as path:
        lines = write_log(path, None, [records], size=900)
        newest = max(path.glob("*.jsonl"))
        if half:
            rubbish = lines[-1][: len(lines[-1]) // 2]
        with newest.open("ab") as file:
            file.write(rubbish)
        with AuditLog(path, "wg0", "gateway", NOW, limits=Limits(size=900)) as log:
            (said,) = log.opening
        record = decode(said)
        assert (record.kind, record.operation, record.detail["bytes"]) == ("recovery", "cut_torn_end", len(rubbish))
        assert (path / str(record.detail["file"])).read_bytes() == rubbish
        assert lines_of(path) == [*lines, said]
        check_chain(lines_of(path))


def test_an_empty_newest_file_and_one_of_rubbish_are_passed_over() -> None:
    with folder() as path:
        lines = write_log(path, None, [3])
        (path / "gateway.000002.jsonl").write_bytes(b"")
        (path / "gateway.000003.jsonl").write_bytes(b"\0" * 99)
        with AuditLog(path, "wg0", "gateway", NOW) as log:
            assert decode(log.opening[0]).detail == {"file": "gateway.000003.torn", "bytes": 99}
            lines += log.opening + log.append([use()], NOW)
        assert lines_of(path) == lines
        check_chain(lines)


def test_files_rotate_by_size_and_by_age_and_carry_the_chain_over() -> None:
    with folder() as path:
        with AuditLog(path, "wg0", "gateway", NOW, limits=Limits(size=1000, age=DAY)) as log:
            for number in range(10):
                log.append([use(number)], NOW)
            files = len(list_files(path)["gateway"])
            assert files >= 3
            log.append([use()], NOW + DAY)
            assert len(list_files(path)["gateway"]) == files + 1
        with AuditLog(path, "wg0", "gateway", NOW + 2 * DAY, limits=Limits(size=1000, age=DAY)) as log:
            log.append([use()], NOW + 2 * DAY)
        assert len(list_files(path)["gateway"]) == files + 2
        check_chain(lines_of(path))


def test_retention_is_announced_and_sealed_before_a_file_goes() -> None:
    signer = Signer()
    limits = Limits(size=500, age=DAY, retention=10 * DAY)
    with folder() as path, AuditLog(path, "wg0", "gateway", NOW, limits=limits) as log:
        for number in range(6):
            log.append([use(number)], NOW + number)
        assert log.tidy(NOW + DAY, sealing=True) == []
        before = list_files(path)["gateway"]
        log.append([use()], NOW + 10 * DAY)
        (said,) = log.tidy(NOW + 11 * DAY, sealing=True)
        record = decode(said)
        assert record.kind == "retention"
        gone = int(record.detail["seq"])
        assert len(list_files(path)["gateway"]) > len(before)
        assert log.tidy(NOW + 11 * DAY, sealing=True) == []
        signer.seal(log, NOW + 11 * DAY)
        assert log.tidy(NOW + 11 * DAY, sealing=True) == []
        rest = lines_of(path)
        assert decode(rest[0]).seq == gone + 1
        assert decode(rest[0]).prev == record.detail["hash"]
        check_chain(rest)


def test_without_an_audit_key_retention_is_carried_out_at_once() -> None:
    with folder() as path, AuditLog(path, "wg0", "gateway", NOW, limits=Limits(size=1, retention=DAY)) as log:
        for number in range(4):
            log.append([use(number)], NOW)
        log.append([use()], NOW + 2 * DAY)
        assert len(log.tidy(NOW + 2 * DAY, sealing=False)) == 1
        assert decode(lines_of(path)[0]).seq == 4


def test_two_writers_are_refused_and_the_lock_is_given_back() -> None:
    with folder() as path:
        with AuditLog(path, "wg0", "gateway", NOW), pytest.raises(LogBusyError, match="another process"):
            AuditLog(path, "wg0", "gateway", NOW)
        AuditLog(path, "wg0", "gateway", NOW).close()


def test_a_full_disk_leaves_neither_half_a_line_nor_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    with folder() as path, AuditLog(path, "wg0", "gateway", NOW) as log:
        log.append([use(1)], NOW)
        head = log.chain.head

        def full(descriptor: int, data: bytes) -> int:
            if len(data) > 50:
                return real(descriptor, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            log.append([use(2), use(3)], NOW)
        with pytest.raises(OSError, match="No space"):
            Signer().seal(log, NOW)
        monkeypatch.setattr(os, "write", real)
        assert log.chain.head == head
        assert log.chain.sealed == -1
        log.append([Event(kind="gap", operation="write", detail={"lost": 2})], NOW)
        assert [decode(line).seq for line in lines_of(path)] == [0, 1, 2]
        check_chain(lines_of(path))


def test_half_a_line_that_could_not_be_taken_back_at_once_is_taken_back_before_the_next_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.write
    with folder() as path, AuditLog(path, "wg0", "gateway", NOW, limits=Limits(age=DAY)) as log:
        lines = [*log.opening, *log.append([use(1)], NOW)]

        def full(descriptor: int, data: bytes) -> int:
            if len(data) > 50:
                return real(descriptor, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")

        def broken(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            patch.setattr(os, "ftruncate", broken)
            with pytest.raises(OSError, match="No space"):
                log.append([use(2)], NOW)
            with pytest.raises(OSError, match="Input/output"):
                log.append([use(3)], NOW + 2 * DAY)
        lines += log.append([use(4)], NOW + 2 * DAY)
        assert lines_of(path) == lines
        assert len(list_files(path)["gateway"]) == 2
        check_chain(lines)


def test_a_folder_that_is_not_there_or_not_ours_is_one_error() -> None:
    with folder() as path:
        with pytest.raises(FileNotFoundError):
            AuditLog(path / "none", "wg0", "gateway", NOW)
        (path / "other").write_bytes(b"")
        (path / "gateway.000001.jsonl").symlink_to("other")
        with pytest.raises(OSError, match=r"gateway\.000001"):
            AuditLog(path, "wg0", "gateway", NOW)
        (path / "gateway.000001.jsonl").unlink()
        os.link(path / "other", path / "gateway.000001.jsonl")
        with pytest.raises(LogError, match="no plain file"):
            AuditLog(path, "wg0", "gateway", NOW)
        (path / "gateway.000001.jsonl").unlink()
        os.mkfifo(path / "gateway.000001.jsonl")
        with pytest.raises((LogError, OSError)):
            AuditLog(path, "wg0", "gateway", NOW)


def test_the_statement_of_what_will_be_written() -> None:
    with folder() as path, AuditLog(path, "wg0", "commands", NOW) as log:
        events = [use(1), use(2)]
        said = log.statement_after(events, NOW + SECOND)
        log.append(events, NOW + SECOND)
        assert log.statement(NOW + SECOND) == said


def test_a_line_longer_than_a_block_of_reading_is_found(tmp_path: Path) -> None:
    lines = write_log(tmp_path, None, [400], size=1 << 20)
    with AuditLog(tmp_path, "wg0", "gateway", NOW) as log:
        assert log.chain.head.hash == hashlib.sha256(lines[-1]).hexdigest()
