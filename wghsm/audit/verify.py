"""Is this log what was written? From its files, public keys and an anchor alone; no token, no network.

    files -> stretches -> scan, in several processes -> joined in order -> signatures, newest first -> Report
                               anchor ----^

A signed checkpoint proves its record and, through the chain, every record before it. So the newest good one settles
the history, and what comes after it stands unsealed. Called by `wghsm audit verify`.
"""

import base64
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .anchor import Anchor
from .files import list_files
from .public_key import PublicKey
from .record import rfc3339
from .scan import Checkpoint, Link, Problem, Scan, Stretch, hashes_in, is_beginning, misfit, scan, step, stretches

__all__ = ["LogReport", "Report", "Verdict", "verify"]

_KEEP = 4
"""Checkpoints of a stretch whose signatures may be looked at: the newest good one is enough."""
_SEVERAL = 8 << 20
"""From so many bytes on several processes are quicker than one."""

Verdict = Literal["proved", "unproved", "broken"]


@dataclass
class LogReport:
    """One log of a folder. `first` and `last` are numbers of records, -1 where there is none."""

    log: str
    stream: str = ""
    files: int = 0
    records: int = 0
    first: int = -1
    last: int = -1
    first_time: str = ""
    last_time: str = ""
    checkpoints: int = 0
    proved_to: int | None = None
    """The history is proved up to this record, from the first one on (or from what retention has left)."""
    proved_time: str = ""
    signed_by: str = ""
    """The fingerprint of the key that proves it."""
    anchored: int = 0
    """Records that the anchor holds too."""
    anchored_to: int | None = None
    torn: int = 0
    """Bytes at the end that are no whole line: a crash, or a record that is just being written."""
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def unsealed(self) -> int:
        """Records after the last one that is proved."""
        proved_to = self.first - 1 if self.proved_to is None else self.proved_to
        return max(self.last - proved_to, 0) if self.records else 0

    @property
    def verdict(self) -> Verdict:
        """Whether it is as it was written."""
        return "broken" if self.problem_count else "unproved" if self.proved_to is None else "proved"

    def add(self, problem: Problem) -> None:
        """Note a problem."""
        self.problem_count += 1
        self.problems.append(problem)


@dataclass
class Report:
    """What verify found, log by log, and what concerns no single log."""

    logs: list[LogReport] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of all logs."""
        verdicts = {log.verdict for log in self.logs}
        if self.problems or "broken" in verdicts or not self.logs:
            return "broken"
        return "unproved" if "unproved" in verdicts else "proved"


def verify(
    folder: Path,
    keys: Sequence[PublicKey],
    *,
    anchor: Anchor | None = None,
    gateway: str | None = None,
    oldest: int | None = None,
    every_signature: bool = False,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Report:
    """Verify every log in `folder`. Raises OSError.

    `keys`: audit keys that are trusted; without one only the chain is checked. `gateway`: whose log it must be.
    `oldest` (us since 1970): the newest proved record of a log must not have been sealed before. `every_signature`: all
    of them, not only the newest that settle the history. `progress` is told bytes done and bytes in all.
    """
    report = Report()
    logs = list_files(folder)
    pieces = {log: list(stretches([file.path for file in files])) for log, files in logs.items()}
    if not logs:
        report.problems.append(Problem("missing", f"{folder} has no files of an audit log"))
    anchors = {} if anchor is None else anchor.streams
    every = [piece for log in pieces.values() for piece in log]
    total = sum(piece.end - piece.start for piece in every)
    scans = _scans(every, _Task(anchors, None if every_signature else _KEEP), total, processes, progress)
    for log, files in logs.items():
        judge = _Judge(log, keys, anchors, every_signature=every_signature)
        for _ in pieces[log]:
            judge.take(next(scans))
        found = judge.judged()
        found.files = len(files)
        if gateway is not None and found.records and found.stream.split("/")[0] != gateway:
            found.add(Problem("gateway", f"this is the log of {found.stream.split('/')[0]}, not of {gateway}"))
        if (
            log == "gateway"
            and oldest is not None
            and found.proved_to is not None
            and found.proved_time < rfc3339(oldest)
        ):
            found.add(Problem("old", f"the newest checkpoint is of {found.proved_time}: what came after is missing"))
        report.logs.append(found)
    if logs and "gateway" not in logs:
        report.notes.append("there is no log of the gateway itself here, only: " + ", ".join(logs))
    if oldest is not None and not any(log.proved_to is not None for log in report.logs if log.log == "gateway"):
        report.problems.append(Problem("old", f"no checkpoint since {rfc3339(oldest)}"))
    if anchor is not None:
        _compare(report, anchor)
    return report


def _scans(
    pieces: list[Stretch],
    task: "_Task",
    total: int,
    processes: int | None,
    progress: Callable[[int, int], None],
) -> Iterator[Scan]:
    count = processes if processes is not None else len(os.sched_getaffinity(0)) if total >= _SEVERAL else 1
    done = 0
    progress(0, total)
    if count <= 1 or len(pieces) <= 1:
        results: Iterable[Scan] = (task(piece) for piece in pieces)
        for result in results:
            done += result.stretch.end - result.stretch.start
            progress(done, total)
            yield result
        return
    # With fork the anchor need not be sent to each of them.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(count, len(pieces)), context, initializer=_know, initargs=(task,)) as pool:
        for result in pool.map(_scan, pieces):
            done += result.stretch.end - result.stretch.start
            progress(done, total)
            yield result


@dataclass(frozen=True)
class _Task:
    """What is the same for each stretch."""

    anchors: Mapping[str, Mapping[int, str]]
    keep: int | None

    def __call__(self, piece: Stretch) -> Scan:
        return scan(piece, self.anchors, self.keep)


_task = _Task({}, None)


def _know(task: _Task) -> None:
    global _task
    _task = task


def _scan(piece: Stretch) -> Scan:
    return _task(piece)


class _Judge:
    """Joins the stretches of one log, which must come in order."""

    def __init__(
        self,
        log: str,
        keys: Sequence[PublicKey],
        anchors: Mapping[str, Mapping[int, str]],
        *,
        every_signature: bool,
    ) -> None:
        self._report = LogReport(log)
        self._keys = {key.fingerprint: key for key in keys}
        self._anchors = anchors
        self._every = every_signature
        self._last: Link | None = None
        self._first_prev = ""
        self._sound: int | None = None
        self._newest: list[tuple[Checkpoint, str, int]] = []
        self._removals: list[tuple[int, int, str]] = []
        self._tail: dict[int, str] = {}
        self._read: list[tuple[Stretch, int, int]] = []
        self._lines = (Path(), 0)

    def take(self, found: Scan) -> None:
        """The next stretch."""
        report, path = self._report, found.stretch.path
        new_file = path != self._lines[0]
        before = 0 if new_file else self._lines[1]
        self._lines = (path, before + found.lines)
        report.torn = found.torn
        if found.first is not None and found.last is not None:
            if self._last is None:
                report.stream, report.first = found.first.stream, found.first.seq
                report.first_time, self._first_prev = found.times[0], found.first.prev
                if report.first == 0 and not is_beginning(found.first):
                    self._problem(Problem("changed", "the first record does not begin a stream", path.name, 1, 0), -1)
            elif wrong := step(self._last, found.first, new_file=new_file):
                self._problem(Problem(wrong[0], wrong[1], path.name, before + 1, found.first.seq), wrong[2])
        report.problem_count += found.problem_count
        report.problems += [_moved(problem, before) for problem in found.problems]
        if found.sound_to is not None:
            previous = -1 if self._last is None else self._last.seq
            self._limit(previous if found.sound_to < 0 else found.sound_to)
        self._settle_open(found, before)
        self._newest += [(one, path.name, before + one.line) for one in found.newest]
        self._removals += found.removals
        report.checkpoints += found.checkpoints
        report.anchored += found.anchored
        if found.anchored_to is not None:
            report.anchored_to = max(found.anchored_to, report.anchored_to or 0)
        if found.last is not None and found.first is not None:
            self._last, self._tail = found.last, found.tail
            self._read.append((found.stretch, found.first.seq, found.last.seq))
            report.last, report.last_time = max(report.last, found.last.seq), found.times[1]
            report.records += found.lines

    def judged(self) -> LogReport:
        """The report, when all stretches have been taken."""
        report = self._report
        if not report.records:
            report.notes.append("there is no record yet")
            return report
        self._prove()
        self._check_beginning()
        report.problems.sort(key=lambda problem: (problem.file, problem.line))
        if report.torn:
            report.notes.append(
                f"{report.torn} bytes at the end are no whole line: a crash, or a record that is just being written"
            )
        if not self._keys:
            report.notes.append("no public key was given, so no signature was checked: anybody could have written this")
        return report

    def _problem(self, problem: Problem, sound_to: int) -> None:
        self._report.add(problem)
        self._limit(sound_to)

    def _limit(self, sound_to: int) -> None:
        self._sound = sound_to if self._sound is None else min(self._sound, sound_to)

    def _settle_open(self, found: Scan, before: int) -> None:
        known = self._looked_up({one.statement.seq for one in found.open})
        for one in found.open:
            about = one.statement.seq
            name, line = found.stretch.path.name, before + one.line
            digest = known.get(about)
            if digest is None and about == self._report.first - 1:
                digest = self._first_prev
            if digest is None and about < self._report.first:
                continue
            if digest != one.statement.hash:
                self._problem(misfit(one, name, line), about - 1)
            else:
                self._newest.append((one, name, line))

    def _looked_up(self, wanted: set[int]) -> dict[int, str]:
        """The hashes of earlier records. What the tail does not have is read again, each stretch once at most."""
        found = {seq: self._tail[seq] for seq in wanted if seq in self._tail}
        for stretch, first, last in reversed(self._read):
            missing = {seq for seq in wanted if first <= seq <= last and seq not in found}
            if missing:
                found |= hashes_in(stretch, missing)
        return found

    def _prove(self) -> None:
        """Find the newest good checkpoint, from the end backwards; one that is not good is a problem."""
        report = self._report
        if not self._keys:
            return
        fitting = [entry for entry in self._newest if self._sound is None or entry[0].statement.seq <= self._sound]
        for one, name, line in sorted(fitting, key=lambda entry: -entry[0].statement.seq):
            text = self._unsigned(one)
            if text is not None:
                report.add(Problem("signature", text, name, line, one.seq))
            elif report.proved_to is None:
                report.proved_to, report.proved_time = one.statement.seq, one.statement.time
                report.signed_by = one.fingerprint
            if report.proved_to is not None and not self._every:
                return

    def _unsigned(self, one: Checkpoint) -> str | None:
        key = self._keys.get(one.fingerprint)
        if key is None:
            return f"the checkpoint in record {one.seq} is signed by another key, {one.fingerprint}"
        try:
            signature = base64.b64decode(one.signature, validate=True)
        except ValueError:
            signature = b""
        if not key.signed(one.statement, signature):
            return f"the checkpoint in record {one.seq} has a wrong signature"
        return None

    def _check_beginning(self) -> None:
        report = self._report
        if report.first == 0:
            return
        # A removal that was interrupted has left some of what it told of.
        end = report.first - 1
        told = [
            said for said, last, digest in self._removals if last > end or (last, digest) == (end, self._first_prev)
        ]
        sealed = [said for said in told if report.proved_to is not None and said <= report.proved_to]
        if sealed or (told and not self._keys):
            report.notes.append(f"the records before {report.first} were removed by retention, says record {told[0]}")
        elif told:
            text = f"the records before {report.first} are missing; record {told[0]} tells of it, but is not sealed"
            report.add(Problem("missing", text, seq=report.first))
        else:
            text = f"the records before {report.first} are missing, and no record tells of a removal by retention"
            report.add(Problem("missing", text, seq=report.first))


def _moved(problem: Problem, lines: int) -> Problem:
    return Problem(problem.kind, problem.text, problem.file, problem.line + lines, problem.seq)


def _compare(report: Report, anchor: Anchor) -> None:
    """Hold what is there against what the anchor has: what is missing, and what was never there."""
    if anchor.unreadable:
        report.notes.append(f"{anchor.unreadable} records of the anchor are cut off or spoiled; they were passed over")
    if not anchor.records:
        report.problems.append(Problem("anchor", "the anchor holds no record of an audit log"))
        return
    there = {log.stream: log for log in report.logs}
    owners = {stream.split("/")[0] for stream in there}
    for stream, numbers in anchor.conflicts.items():
        if stream in there:
            first = min(numbers)
            text = f"the anchor holds two versions of {len(numbers)} records; the first is record {first}"
            there[stream].add(Problem("anchor", text, seq=first))
    for stream, held in anchor.streams.items():
        log = there.get(stream)
        if log is not None:
            _compare_log(log, held)
        elif stream.split("/")[0] in owners:
            text = f"the anchor holds {len(held)} records of {stream}, which is not here"
            report.problems.append(Problem("anchor", text))
    for log in report.logs:
        if log.records and log.stream not in anchor.streams:
            text = f"the anchor holds no record of {log.stream}"
            if log.log == "gateway":
                log.add(Problem("anchor", text))
            else:
                log.notes.append(text)


def _compare_log(log: LogReport, held: Mapping[int, str]) -> None:
    newest = max(held)
    if newest > log.last:
        text = f"the end is cut off: the anchor holds records up to {newest}, the last one here is {log.last}"
        log.add(Problem("anchor", text, seq=newest))
    inside = [seq for seq in held if log.first <= seq <= log.last]
    if len(inside) > log.anchored and not log.problem_count:
        log.add(Problem("anchor", f"{len(inside) - log.anchored} records of the anchor are not here"))
