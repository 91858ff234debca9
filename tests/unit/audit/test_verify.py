"""Verify, with files, public key and anchor alone: every change is found, and no good log is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.audit.support import DAY, NOW, SECOND, Signer, folder, lines_of, use, write_log
from wghsm.audit import AuditLog, Event, Limits, LogReport, PublicKey, Report, decode, read_anchor, verify
from wghsm.audit import scan as scan_module
from wghsm.audit.record import encode, rfc3339

SIGNER = Signer()
OTHER = Signer()
KEYS = [SIGNER.public]


def checked(path: Path, anchor: list[bytes] | None = None, keys: list[PublicKey] | None = None, **more: str) -> Report:
    return verify(
        path,
        KEYS if keys is None else keys,
        anchor=None if anchor is None else read_anchor(anchor),
        gateway=more.get("gateway"),
        processes=1,
    )


def kinds(report: Report) -> set[str]:
    return {problem.kind for log in report.logs for problem in log.problems} | {each.kind for each in report.problems}


def the_log(report: Report) -> LogReport:
    (log,) = report.logs
    return log


def put(path: Path, lines: list[bytes], per_file: int = 7) -> None:
    """Lay `lines` out as an attacker would: in tidy files again."""
    for file in path.glob("*.jsonl"):
        file.unlink()
    for place in range(0, len(lines), per_file):
        text = b"".join(line + b"\n" for line in lines[place : place + per_file])
        (path / f"gateway.{place // per_file + 1:06}.jsonl").write_bytes(text)


batches = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@given(batches, st.integers(1, 4000), st.booleans(), st.integers(0, 5))
def test_no_good_log_is_refused(records: list[int], size: int, anchored: bool, unsealed: int) -> None:
    with folder() as path:
        lines = write_log(path, SIGNER, records, size=size)
        with AuditLog(path, "wg0", "gateway", NOW + DAY) as log:
            lines += log.append([use(number) for number in range(unsealed)], NOW + DAY)
        report = checked(path, lines if anchored else None)
        log_report = the_log(report)
        assert report.verdict == "proved", report
        assert (log_report.records, log_report.first, log_report.last) == (len(lines), 0, len(lines) - 1)
        assert log_report.unsealed == unsealed + 1, "the checkpoint itself is not sealed yet"
        assert log_report.proved_to == len(lines) - unsealed - 2
        assert log_report.checkpoints == len(records)
        assert log_report.signed_by == SIGNER.public.fingerprint
        assert log_report.anchored == (len(lines) if anchored else 0)


@given(st.lists(st.integers(1, 5), min_size=12, max_size=30), st.integers(2, 8), st.booleans())
def test_no_log_that_retention_has_shortened_is_refused(records: list[int], days: int, anchored: bool) -> None:
    with folder() as path:
        lines = write_log(path, SIGNER, records, size=1200, retention=days * DAY, step=DAY // 2)
        report = checked(path, lines if anchored else None)
        assert report.verdict == "proved", report
        left = lines_of(path)
        assert lines[-len(left) :] == left
        assert the_log(report).first == len(lines) - len(left)


def changes(lines: list[bytes], data: st.DataObject) -> list[bytes]:
    """One change of what was written, of the kinds that an attacker or a bad disk makes."""
    place = data.draw(st.integers(0, len(lines) - 1), label="place")
    other = data.draw(st.integers(0, len(lines) - 1), label="other")
    kind = data.draw(
        st.sampled_from(["edit", "delete", "swap", "repeat", "insert", "cut", "head", "splice"]), label="kind"
    )
    new = list(lines)
    if kind == "edit":
        line = bytearray(new[place])
        at = data.draw(st.integers(0, len(line) - 1), label="at")
        line[at] = data.draw(st.integers(0, 255).filter(lambda value: value not in (line[at], 10)), label="byte")
        new[place] = bytes(line)
    elif kind == "delete":
        del new[place]
    elif kind == "swap":
        new[place], new[other] = new[other], new[place]
    elif kind == "repeat":
        new.insert(place, new[other])
    elif kind == "insert":
        new.insert(place, encode(use(99), decode(lines[0]).stream, place, NOW, "0" * 64))
    elif kind == "cut":
        del new[place:]
    elif kind == "head":
        del new[:place]
    else:
        new[place : place + 2] = new[other : other + 3]
    return new


@settings(max_examples=300)
@given(batches, st.data())
def test_with_an_anchor_every_change_is_found(records: list[int], data: st.DataObject) -> None:
    with folder() as path:
        lines = write_log(path, SIGNER, records)
        changed = changes(lines, data)
        put(path, changed)
        report = checked(path, lines)
        assert (report.verdict == "proved") == (changed == lines), report


@settings(max_examples=300)
@given(batches, st.data())
def test_without_an_anchor_every_change_of_what_is_sealed_is_found(records: list[int], data: st.DataObject) -> None:
    """But for the end: what was cut off with its checkpoints cannot be missed by what is left."""
    with folder() as path:
        lines = write_log(path, SIGNER, records)
        changed = changes(lines, data)
        put(path, changed)
        report = checked(path)
        if not changed:
            assert report.verdict == "broken"
            return
        log = the_log(report)
        if changed == lines[: len(changed)]:
            assert report.verdict in {"proved", "unproved"}
        elif changed[: len(lines) - 1] == lines[:-1]:
            assert log.proved_to is None or log.proved_to <= len(lines) - 2
        else:
            assert report.verdict == "broken", report
        if log.proved_to is not None and log.first == 0:
            assert changed[: log.proved_to + 1] == lines[: log.proved_to + 1], "only what was written is ever proved"


@given(batches, st.data())
def test_whatever_is_in_the_files_verify_ends_with_a_report(records: list[int], data: st.DataObject) -> None:
    with folder() as path:
        write_log(path, SIGNER, records)
        file = data.draw(st.sampled_from(sorted(path.glob("*.jsonl"))))
        text = bytearray(file.read_bytes())
        at = data.draw(st.integers(0, len(text)))
        rubbish = data.draw(
            st.binary(min_size=1, max_size=50)
            | st.sampled_from([b'{"v":1}\n', b"\n", b"\0\0", b'"seq":-7,', b"\xff\xfe", b'{"seq":1e999}\n'])
        )
        text[at : at + data.draw(st.integers(0, 40))] = rubbish
        file.write_bytes(text)
        report = checked(path)
        assert report.verdict in {"proved", "unproved", "broken"}


@pytest.mark.parametrize("character", ["\x80", "\N{SNOWMAN}", "!", "="])
def test_a_signature_that_is_no_base64_is_a_wrong_one(tmp_path: Path, character: str) -> None:
    write_log(tmp_path, SIGNER, [0])
    file = min(tmp_path.glob("*.jsonl"))
    text = file.read_text()
    assert '"signature":"' in text
    file.write_text(text.replace('"signature":"', f'"signature":"{character}', 1))
    assert checked(tmp_path).verdict == "broken"


class TestRootAfterTheFact:
    """Somebody who may write every file, but had no audit key."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        self.lines = write_log(tmp_path, SIGNER, [5, 5, 5])
        return tmp_path

    def rewritten(self, start: int, seal: Callable[[AuditLog], object] | None = None) -> None:
        """All since record `start` made anew, in a chain that is sound in itself."""
        with folder() as new:
            put(new, self.lines[:start], 1000)
            with AuditLog(new, "wg0", "gateway", NOW, limits=Limits()) as log:
                for number in range(start, len(self.lines)):
                    if decode(self.lines[number]).kind == "checkpoint" and seal is not None:
                        seal(log)
                    else:
                        log.append([use(7_000_000)], NOW)
            self.forged = lines_of(new)

    def test_a_rewritten_tail_stands_unsealed(self, path: Path) -> None:
        self.rewritten(8)
        put(path, self.forged)
        log = the_log(checked(path))
        assert (log.verdict, log.proved_to, log.unsealed) == ("proved", 5, len(self.lines) - 6)
        assert kinds(checked(path, self.lines[:10])) == {"anchor"}

    def test_a_rewritten_tail_with_the_old_checkpoints_is_found(self, path: Path) -> None:
        old = [decode(line) for line in self.lines if b'"kind":"checkpoint"' in line][1:]

        def replay(log: AuditLog) -> None:
            record = old.pop(0)
            log.append([Event(kind="checkpoint", operation="sign", key=record.key, detail=record.detail)], NOW)

        self.rewritten(8, replay)
        put(path, self.forged)
        report = checked(path)
        assert kinds(report) == {"checkpoint"}
        assert the_log(report).proved_to == 5

    def test_a_rewritten_tail_under_another_key_is_found(self, path: Path) -> None:
        self.rewritten(8, lambda log: OTHER.seal(log, NOW))
        put(path, self.forged)
        report = checked(path)
        assert kinds(report) == {"signature"}
        assert (the_log(report).proved_to, the_log(report).problem_count) == (5, 2)
        assert "another key" in the_log(report).problems[0].text

    def test_another_key_under_the_old_ones_name_is_found(self, path: Path) -> None:
        def forge(log: AuditLog) -> None:
            statement = log.statement(NOW)
            log.checkpoint(statement, b"\x05" * 64, SIGNER.public.fingerprint, "ed25519", NOW)

        self.rewritten(8, forge)
        put(path, self.forged)
        report = checked(path)
        assert "wrong signature" in the_log(report).problems[0].text
        assert the_log(report).proved_to == 5

    def test_a_whole_new_log_is_not_proved(self, path: Path) -> None:
        for file in path.glob("*.jsonl"):
            file.unlink()
        write_log(path, None, [20])
        assert the_log(checked(path)).verdict == "unproved"
        report = checked(path, self.lines)
        assert "which is not here" in report.problems[0].text

    def test_the_newest_files_removed(self, path: Path) -> None:
        for file in sorted(path.glob("*.jsonl"))[-2:]:
            file.unlink()
        assert checked(path).verdict == "proved"
        report = checked(path, self.lines)
        assert kinds(report) == {"anchor"}
        assert "the end is cut off" in the_log(report).problems[0].text
        stale = verify(path, KEYS, oldest=NOW + 14 * SECOND, processes=1)
        assert kinds(stale) == {"old"}
        shutil.rmtree(path)
        path.mkdir()
        self.lines = write_log(path, SIGNER, [5, 5, 5])
        assert verify(path, KEYS, oldest=NOW + 14 * SECOND, processes=1).verdict == "proved"

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_missing_file(self, path: Path, which: int) -> None:
        sorted(path.glob("*.jsonl"))[which].unlink()
        assert kinds(checked(path)) == {"missing"}

    def test_a_claimed_retention_is_not_believed(self, path: Path) -> None:
        files = sorted(path.glob("*.jsonl"))
        first = files[1].read_bytes().splitlines()[0]
        files[0].unlink()
        record = decode(first)
        with AuditLog(path, "wg0", "gateway", NOW) as log:
            detail: dict[str, str | int] = {
                "seq": record.seq - 1,
                "hash": record.prev,
                "files": 1,
                "until": rfc3339(NOW),
            }
            log.append([Event(kind="retention", operation="remove", detail=detail)], NOW)
        report = checked(path)
        assert kinds(report) == {"missing"}
        assert "not sealed" in the_log(report).problems[0].text
        assert the_log(checked(path, keys=[])).verdict == "unproved"

    def test_swapped_files(self, path: Path) -> None:
        one, two = sorted(path.glob("*.jsonl"))[:2]
        one_text, two_text = one.read_bytes(), two.read_bytes()
        one.write_bytes(two_text)
        two.write_bytes(one_text)
        assert checked(path).verdict == "broken"

    def test_the_log_of_another_gateway(self, path: Path) -> None:
        own = self.lines
        with folder() as other:
            theirs = write_log(other, SIGNER, [5, 5, 5], gateway="wg1")
            assert checked(other, gateway="wg1").verdict == "proved"
            assert kinds(checked(other, gateway="wg0")) == {"gateway"}
            assert kinds(checked(other, own)) == {"anchor"}
            assert kinds(checked(other, own + theirs, gateway="wg0")) == {"gateway"}
            swapped = sorted(other.glob("*.jsonl"))[1]
            shutil.copy(swapped, sorted(path.glob("*.jsonl"))[1])
        assert "stream" in kinds(checked(path))

    def test_an_old_copy_of_the_log(self, path: Path) -> None:
        with folder() as copy:
            shutil.copytree(path, copy, dirs_exist_ok=True)
            newer = write_log(path, SIGNER, [3], now=NOW + DAY)
            assert checked(copy).verdict == "proved"
            assert kinds(checked(copy, newer)) == {"anchor"}
            assert kinds(verify(copy, KEYS, oldest=NOW + DAY, processes=1)) == {"old"}

    def test_checkpoints_of_another_stream(self, path: Path) -> None:
        with folder() as other:
            theirs = [decode(line) for line in write_log(other, SIGNER, [5, 5, 5], gateway="wg1")]
        taken = [record for record in theirs if record.kind == "checkpoint"]

        def replay(log: AuditLog) -> None:
            record = taken.pop()
            detail: dict[str, str | int] = {**record.detail, "seq": log.chain.head.seq, "hash": log.chain.head.hash}
            log.append([Event(kind="checkpoint", operation="sign", key=record.key, detail=detail)], NOW)

        self.rewritten(8, replay)
        put(path, self.forged)
        assert kinds(checked(path)) == {"signature"}

    def test_the_anchor_shows_two_versions(self, path: Path) -> None:
        self.rewritten(8)
        report = checked(path, [*self.lines, *self.forged])
        (told,) = [problem.text for problem in the_log(report).problems if "two versions" in problem.text]
        assert told == f"the anchor holds two versions of {len(self.lines) - 8} records; the first is record 8"

    def test_one_log_of_two_is_gone(self, path: Path) -> None:
        commands = write_log(path, SIGNER, [1], log="commands")
        everything = self.lines + commands
        assert checked(path, everything).verdict == "proved"
        for file in path.glob("gateway.*.jsonl"):
            file.unlink()
        report = checked(path)
        assert report.notes == ["there is no log of the gateway itself here, only: commands"]
        assert kinds(checked(path, everything)) == {"anchor"}
        assert kinds(verify(path, KEYS, oldest=NOW, processes=1)) == {"old"}


def test_a_wrong_key_and_no_key(tmp_path: Path) -> None:
    write_log(tmp_path, SIGNER, [3])
    report = checked(tmp_path, keys=[OTHER.public])
    assert kinds(report) == {"signature"}
    assert the_log(report).proved_to is None
    report = checked(tmp_path, keys=[])
    assert report.verdict == "unproved"
    assert "no public key" in the_log(report).notes[0]


def test_after_a_change_of_the_audit_key_the_newer_one_proves_all(tmp_path: Path) -> None:
    write_log(tmp_path, SIGNER, [3, 3])
    write_log(tmp_path, OTHER, [3], now=NOW + DAY)
    assert checked(tmp_path, keys=[OTHER.public]).verdict == "proved"
    assert checked(tmp_path, keys=[OTHER.public, SIGNER.public]).verdict == "proved"
    assert kinds(checked(tmp_path)) == {"signature"}
    every = verify(tmp_path, [OTHER.public], every_signature=True, processes=1)
    assert the_log(every).problem_count == 2


def test_a_crash_and_a_record_that_is_being_written_are_notes(tmp_path: Path) -> None:
    lines = write_log(tmp_path, SIGNER, [5, 5])
    newest = max(tmp_path.glob("*.jsonl"))
    with newest.open("ab") as file:
        file.write(b'{"v":1,"str')
    report = checked(tmp_path, lines)
    assert report.verdict == "proved"
    assert "11 bytes at the end" in the_log(report).notes[0]
    write_log(tmp_path, SIGNER, [2], now=NOW + DAY)
    assert checked(tmp_path, lines).verdict == "proved"


def test_a_removal_that_was_interrupted_is_no_problem(tmp_path: Path) -> None:
    write_log(tmp_path, SIGNER, [4] * 4, size=1000)
    files = sorted(tmp_path.glob("*.jsonl"))
    with AuditLog(tmp_path, "wg0", "gateway", NOW + 5 * DAY, limits=Limits(size=1000, retention=DAY)) as log:
        log.append([use()], NOW + 5 * DAY)
        log.tidy(NOW + 9 * DAY, sealing=True)
        SIGNER.seal(log, NOW + 9 * DAY)
    files[0].unlink()
    assert checked(tmp_path).verdict == "proved"


def test_stretches_and_processes_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = write_log(tmp_path, SIGNER, [40, 3, 0, 9], size=4000)
    whole = checked(tmp_path, lines)
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(scan_module, "STRETCH", 700)
    small = verify(tmp_path, KEYS, anchor=read_anchor(lines), processes=2, progress=lambda *at: told.append(at))
    assert small == whole
    assert told[-1][0] == told[-1][1] == sum(len(line) + 1 for line in lines)
    monkeypatch.setattr(scan_module, "_TAIL", 1)
    assert verify(tmp_path, KEYS, anchor=read_anchor(lines), processes=2) == whole
    put(tmp_path, [*lines[:20], *lines[21:]], 1000)
    assert kinds(verify(tmp_path, KEYS, processes=2)) == {"missing"}


def test_a_checkpoint_may_be_about_a_record_far_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token was away for long; or somebody wants verify to read everything again for each of many records."""
    with AuditLog(tmp_path, "wg0", "gateway", NOW) as log:
        statements = [log.statement(NOW) for _ in range(30) if log.append([use()], NOW)]
        log.append([use(number) for number in range(20)], NOW)
        for statement in statements:
            SIGNER.sign(log, statement, NOW)
    monkeypatch.setattr(scan_module, "STRETCH", 4000)
    monkeypatch.setattr(scan_module, "_TAIL", 1)
    read: list[object] = []
    real = scan_module._bytes_of

    def counted(stretch: scan_module.Stretch) -> bytes:
        read.append(stretch)
        return real(stretch)

    monkeypatch.setattr(scan_module, "_bytes_of", counted)
    report = checked(tmp_path)
    assert (report.verdict, the_log(report).proved_to) == ("proved", 30)
    stretches = len(set(read))
    assert len(read) <= stretches * stretches
    lines = lines_of(tmp_path)
    forged = encode(use(9), decode(lines[0]).stream, 5, NOW, decode(lines[5]).prev)
    put(tmp_path, [*lines[:5], forged, *lines[6:]], 1000)
    assert kinds(checked(tmp_path)) == {"changed", "checkpoint"}


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    assert kinds(checked(tmp_path)) == {"missing"}
    (tmp_path / "gateway.000001.jsonl").write_bytes(b"")
    report = checked(tmp_path)
    assert (report.verdict, the_log(report).notes) == ("unproved", ["there is no record yet"])
