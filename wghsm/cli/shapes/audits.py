"""`wghsm audit verify --json` and `wghsm ceremony verify --json`."""

from typing import Annotated, Literal

from msgspec import Struct

from . import said

__all__ = ["CeremonyDifference", "CeremonyVerified", "LogsVerified"]

Verdict = Literal["proved", "unproved", "broken"]


class AuditProblem(Struct, frozen=True, kw_only=True):
    """Something that is not as it was written."""

    kind: Annotated[str, said("a word for it")]
    text: Annotated[str, said("what it is")]
    file: Annotated[str, said("where; empty: in no single file")]
    line: Annotated[int, said("its line, from 1; 0: none")]
    seq: Annotated[int | None, said("the record's number; null: none")]


class LogVerified(Struct, frozen=True, kw_only=True):
    """One log of the folder."""

    log: Annotated[str, said("gateway or commands")]
    stream: Annotated[str, said("whose records they are")]
    files: Annotated[int, said("how many files hold it")]
    records: Annotated[int, said("how many records there are")]
    first: Annotated[int, said("the number of the first record; -1: none")]
    last: Annotated[int, said("the number of the last record; -1: none")]
    first_time: Annotated[str, said("its time, in UTC; empty: none")]
    last_time: Annotated[str, said("its time, in UTC; empty: none")]
    checkpoints: Annotated[int, said("how many signed checkpoints there are")]
    proved_to: Annotated[int | None, said("the history is proved up to this record; null: nothing is")]
    proved_time: Annotated[str, said("when that was sealed, in UTC; empty: never")]
    signed_by: Annotated[str, said("the fingerprint of the key that proves it; empty: none")]
    anchored: Annotated[int, said("records that the anchor holds too")]
    anchored_to: Annotated[int | None, said("the last of them; null: none")]
    torn: Annotated[int, said("bytes at the end that are no whole line")]
    problem_count: Annotated[int, said("how many problems there are")]
    problems: Annotated[list[AuditProblem], said("the first of them")]
    notes: Annotated[list[str], said("what is worth knowing, and no problem")]
    unsealed: Annotated[int, said("records after the last one that is proved")]
    verdict: Annotated[Verdict, said("proved: as it was written; unproved: in order, but nothing proves it")]


class LogsVerified(Struct, frozen=True, kw_only=True):
    """An audit log, held against its keys and its anchor."""

    logs: Annotated[list[LogVerified], said("log by log")]
    problems: Annotated[list[AuditProblem], said("what concerns no single log")]
    notes: Annotated[list[str], said("what is worth knowing, and no problem")]
    verdict: Annotated[Verdict, said("the worst of all")]


class CeremonyDifference(Struct, frozen=True, kw_only=True):
    """One fact that is another one today."""

    where: Annotated[str, said("the token, or the software")]
    what: Annotated[str, said("the fact")]
    then: Annotated[str, said("as the transcript says")]
    now: Annotated[str, said("as it is today")]
    breaks: Annotated[bool, said("whether it contradicts the transcript")]


class CeremonyVerified(Struct, frozen=True, kw_only=True):
    """A transcript, held against the tokens of today."""

    sha256: Annotated[str, said("of transcript.json; it must be the one on the signed paper")]
    agrees: Annotated[bool, said("whether nothing contradicts the transcript")]
    differences: Annotated[list[CeremonyDifference], said("what has changed")]
