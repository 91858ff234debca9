"""Following a log while it is written and rotated."""

from pathlib import Path

from tests.unit.audit.support import NOW, SECOND, use, write_log
from wghsm.audit import AuditLog, Limits, LogReader


def test_each_record_comes_once_over_rotations_and_halves_of_lines(tmp_path: Path) -> None:
    reader = LogReader(tmp_path)
    assert list(reader.new()) == []
    first = write_log(tmp_path, None, [3], size=800)
    assert [line for line, _ in reader.new()] == first
    assert list(reader.new()) == []
    with AuditLog(tmp_path, "wg0", "gateway", NOW, limits=Limits(size=800)) as log:
        lines = [line for number in range(9) for line in log.append([use(number)], NOW + number * SECOND)]
        assert [line for line, _ in reader.new()] == lines
        newest = max(tmp_path.glob("*.jsonl"))
        whole = newest.read_bytes()
        with newest.open("ab") as file:
            file.write(lines[0][:20])
        assert list(reader.new()) == []
        with newest.open("ab") as file:
            file.write(lines[0][20:] + b"\n")
        assert [line for line, _ in reader.new()] == [lines[0]]
        newest.write_bytes(whole)
    assert reader.unreadable == 0
