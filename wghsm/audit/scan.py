"""One stretch of a log's file, read once: is every record the successor of the one before?

    file -> stretches at line ends -> scan (in several processes) -> Scan: where it begins and ends, what is wrong,
    checkpoints whose record it has seen, and what only the stretches before and after can settle

Called by verify, which joins the stretches. Everything here may have been written by an attacker.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from .record import FIRST_PREV, Record, decode
from .statement import Statement

__all__ = ["Checkpoint", "Link", "Problem", "Scan", "Stretch", "hashes_in", "scan", "step", "stretches"]

STRETCH = 16 << 20
PROBLEMS = 50
"""So many problems of a stretch are kept; all are counted."""
_TAIL = 4096


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was written: `file` and `line` (from 1) where it is in one, `seq` the record."""

    kind: str
    text: str
    file: str = ""
    line: int = 0
    seq: int | None = None


@dataclass(frozen=True)
class Stretch:
    """Bytes `start` to `end` of a file; `last` where nothing of the log comes after it."""

    path: Path
    start: int
    end: int
    last: bool


@dataclass(frozen=True)
class Link:
    """The end of a chain so far: the last record's stream, number and hash (hex)."""

    stream: str
    seq: int
    hash: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: record `seq` says that `statement` is signed. `line` counts from the stretch's beginning."""

    seq: int
    line: int
    statement: Statement
    signature: str
    fingerprint: str


@dataclass
class Scan:
    """What a stretch holds. Lines count from 1 at its beginning."""

    stretch: Stretch
    lines: int = 0
    first: "Head | None" = None
    last: Link | None = None
    times: tuple[str, str] = ("", "")
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    sound_to: int | None = None
    """The chain breaks behind this record (-1: behind the stretch before); None where it does not."""
    checkpoints: int = 0
    newest: list[Checkpoint] = field(default_factory=list)
    """The newest ones before the chain breaks that fit their records."""
    open: list[Checkpoint] = field(default_factory=list)
    """Those about a record before this stretch."""
    tail: dict[int, str] = field(default_factory=dict)
    """The hashes of the last records."""
    removals: list[tuple[int, int, str]] = field(default_factory=list)
    """Retention: the record that says it, the last record removed, and its hash."""
    anchored: int = 0
    anchored_to: int | None = None
    torn: int = 0
    """Bytes of a last line without its end."""

    def report(self, problem: Problem, sound_to: int) -> None:
        """Note a problem; the records after `sound_to` are not proved by what comes behind it."""
        self.problem_count += 1
        if len(self.problems) < PROBLEMS:
            self.problems.append(problem)
        self.sound_to = sound_to if self.sound_to is None else min(self.sound_to, sound_to)


class Head(msgspec.Struct):
    """What every record has."""

    stream: str
    seq: int
    prev: str
    kind: str
    time: str


_head = msgspec.json.Decoder(Head)
_SPECIAL = frozenset({"checkpoint", "retention"})


def stretches(files: list[Path]) -> Iterator[Stretch]:
    """The files of one log, in order, in pieces that end where lines end. Raises OSError."""
    for place, path in enumerate(files):
        size = path.stat().st_size
        start = 0
        with path.open("rb") as file:
            while True:
                end = size
                if size - start > STRETCH:
                    file.seek(start + STRETCH)
                    file.readline()
                    end = min(file.tell(), size)
                yield Stretch(path, start, end, place == len(files) - 1 and end == size)
                start = end
                if end >= size:
                    break


def step(last: Link, head: Head, *, new_file: bool) -> tuple[str, str, int] | None:
    """Whether `head` comes after `last`: None, or the kind of problem, its text and the last record that is sound."""
    if head.stream != last.stream:
        return "stream", f"a record of another stream, {head.stream}, after one of {last.stream}", last.seq
    if head.seq == last.seq + 1:
        if head.prev == last.hash:
            return None
        return "changed", f"record {last.seq} is not the one that record {head.seq} was written after", last.seq - 1
    if head.seq > last.seq + 1:
        several = head.seq > last.seq + 2
        which = f"records {last.seq + 1} to {head.seq - 1} are" if several else f"record {head.seq - 1} is"
        return "missing", which + (" missing, with a file or its end" if new_file else " missing"), last.seq
    return "order", f"record {head.seq} stands after record {last.seq}", last.seq


def scan(stretch: Stretch, anchors: Mapping[str, Mapping[int, str]], keep: int | None = 4) -> Scan:
    """Read a stretch. Raises OSError.

    `anchors` has the hashes of an anchor's records by stream and number; `keep` bounds `Scan.newest`, None does not.
    """
    found = Scan(stretch)
    data = _bytes_of(stretch)
    lines = data.split(b"\n")
    rest = lines.pop()
    if rest and stretch.last:
        found.torn = len(rest)
    elif rest:
        text = f"{len(rest)} bytes at the end of the file are no whole line"
        found.report(Problem("unreadable", text, stretch.path.name, len(lines) + 1), -1)
    last: Link | None = None
    hashes: dict[int, str] = {}
    newest: deque[Checkpoint] = deque(maxlen=keep)
    stream, seq, digest = "", -1, ""
    anchor: Mapping[int, str] = {}
    sha256, parse = hashlib.sha256, _head.decode
    time = first_time = ""
    name = stretch.path.name
    for number, line in enumerate(lines, 1):
        try:
            head = parse(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found.report(Problem("unreadable", "no record of the audit log", name, number), seq)
            continue
        if head.seq != seq + 1 or head.prev != digest or head.stream != stream:
            if found.first is None:
                found.first = head
                first_time = head.time
            elif wrong := step(Link(stream, seq, digest), head, new_file=False):
                found.report(Problem(wrong[0], wrong[1], name, number, head.seq), wrong[2])
            if head.stream != stream:
                stream = head.stream
                anchor = anchors.get(stream, {})
        seq = head.seq
        digest = sha256(line).hexdigest()
        time = head.time
        hashes[seq] = digest
        if anchor and seq in anchor:
            if anchor[seq] == digest:
                found.anchored += 1
                found.anchored_to = seq
            else:
                text = f"record {seq} is another one in the anchor"
                found.report(Problem("anchor", text, name, number, seq), seq - 1)
        if head.kind in _SPECIAL:
            _special(found, head.seq, line, number, hashes, newest)
    if found.first is not None:
        last = Link(stream, seq, digest)
    found.lines, found.last, found.times = len(lines), last, (first_time, time)
    found.newest = list(newest)
    found.tail = dict(list(hashes.items())[-_TAIL:])
    return found


def hashes_in(stretch: Stretch, wanted: set[int]) -> dict[int, str]:
    """The hashes of the records `wanted`, of those that are in the stretch. Raises OSError."""
    found: dict[int, str] = {}
    for line in _bytes_of(stretch).split(b"\n"):
        try:
            seq = _head.decode(line).seq
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if seq in wanted:
            found[seq] = hashlib.sha256(line).hexdigest()
    return found


def _special(
    found: Scan, seq: int, line: bytes, number: int, hashes: dict[int, str], newest: deque[Checkpoint]
) -> None:
    try:
        record = decode(line)
        if record.kind == "retention":
            found.removals.append((record.seq, int(record.detail["seq"]), str(record.detail["hash"])))
            return
        checkpoint = _checkpoint(record, number)
    except (msgspec.MsgspecError, ValueError, KeyError, UnicodeDecodeError):
        text = "a checkpoint or a removal that does not say what it must"
        found.report(Problem("checkpoint", text, found.stretch.path.name, number, seq), seq - 1)
        return
    found.checkpoints += 1
    about = checkpoint.statement.seq
    if about not in hashes:
        found.open.append(checkpoint)
    elif hashes[about] != checkpoint.statement.hash:
        found.report(misfit(checkpoint, found.stretch.path.name, number), about - 1)
    elif found.sound_to is None or about <= found.sound_to:
        newest.append(checkpoint)


def misfit(checkpoint: Checkpoint, file: str, line: int) -> Problem:
    """The problem of a checkpoint that is about another record than the one with its number."""
    text = f"the checkpoint in record {checkpoint.seq} is about another record {checkpoint.statement.seq} than is there"
    return Problem("checkpoint", text, file, line, checkpoint.statement.seq)


def _checkpoint(record: Record, number: int) -> Checkpoint:
    detail = record.detail
    about = int(detail["seq"])
    if about >= record.seq:
        raise ValueError("a checkpoint is about a record before it")
    statement = Statement(record.stream, about, str(detail["hash"]), str(detail["time"]))
    return Checkpoint(record.seq, number, statement, str(detail["signature"]), record.key)


def _bytes_of(stretch: Stretch) -> bytes:
    with stretch.path.open("rb") as file:
        file.seek(stretch.start)
        return file.read(stretch.end - stretch.start)


def is_beginning(head: Head) -> bool:
    """Whether a record may be the first of a stream."""
    return head.seq == 0 and head.prev == FIRST_PREV and head.kind == "start"
