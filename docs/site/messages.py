"""docs/messages.md: every message that an operator can meet, made from the code.

    python docs/site/messages.py > docs/messages.md

Called by hand, and by the test that holds the page to the code. `spoken` reads the messages from the source, `known`
has what the code does not say: meaning and remedy of counters, exit codes and audit records.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from known import COUNTERS, EXITS, RECORDS
from spoken import ROOT, Said, spoken

from wghsm.audit.record import FIRST_PREV, KINDS, Event, decode, encode
from wghsm.auditor.severity import severity
from wghsm.exits import FINAL, ExitCode
from wghsm.ipc import Counter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["page"]

_INTRODUCTION = """# Messages

What wghsm says when something is not as it should be, and what to do then. This page is made from the code:
`python docs/site/messages.py > docs/messages.md`.

Words in capitals stand for what is filled in, `...` for more words. A message mostly ends with what to do, after a
semicolon. Where the message of another program is passed on (the kernel, nft, a PKCS#11 module), it stands there as
REASON, ERROR or CKR_NAME. Texts that are put together while running are here by their parts; what click, pydantic or
Python say themselves is not here.

| where it is seen | what it looks like | below |
|---|---|---|
| a command ends | `wghsm: MESSAGE` on standard error, and an exit code | [exit codes](#exit-codes), [errors](#errors) |
| a gateway ends, or does not start | the same from `wghsm up` and `run`, and in the log | the same |
| a fault of a gateway file | `FILE:LINE: MESSAGE; REMEDY`, exit code 2 | [the gateway file](#the-gateway-file) |
| a change of a running gateway is refused | the answer to `wghsm reload` or `wghsm peer` | [answers](#answers) |
| the log | `TIME GATEWAY PROCESS[PID] LEVEL: MESSAGE` | [log](#log) |
| `wghsm status` | counters | [counters](#counters) |
| `wghsm token doctor` | a line for each check | [findings](#findings-of-the-token-doctor) |
| `wghsm audit show` | records | [audit records](#audit-records) |
| `wghsm audit verify` | what is not as it was written | [problems of an audit log](#problems-of-an-audit-log) |
"""

_SEVERITIES = {4: "warning", 5: "notice", 6: "info"}
_COMMANDS = ("commands",)
_OWNERS = {
    "cli": _COMMANDS,
    "ceremony": _COMMANDS,
    "inventory": _COMMANDS,
    "wgquick": _COMMANDS,
    "softhsm_setup": _COMMANDS,
    "audit": ("auditor", "commands"),
    "pkcs11_backend": ("commands", "custodian"),
    "ipc": ("every process",),
    "process": ("every process",),
    "firewall": ("supervisor",),
}
_TUNNEL = {
    "receiver": ("ingress",),
    "ingress": ("ingress",),
    "deliver": ("ingress",),
    "sender": ("egress",),
    "egress": ("egress",),
    "transmit": ("egress",),
}
"""Who runs which rooms, where it is not a process of that name; the modules of the tunnel that one process has."""


def page() -> str:
    """The whole page."""
    found = spoken()
    parts = [_INTRODUCTION, "\n".join(_exits())]
    by_how: dict[str, list[Said]] = defaultdict(list)
    for each in found:
        by_how[each.how].append(each)
    parts.append("\n".join(_errors(by_how["end"])))
    parts.append("\n".join(_file(by_how["file"])))
    parts.append(
        _plain(
            "Notes of commands",
            "They go on, and say beside it on standard error:",
            by_how["notice"],
        )
    )
    parts.append(
        _plain(
            "Answers",
            "Of a running gateway. What it refuses is not done at all. `wg` says only `Operation not permitted`.",
            by_how["answer"],
        )
    )
    parts.append("\n".join(_log(by_how["log"])))
    parts.append("\n".join(_counters()))
    parts.append("\n".join(_doctor(by_how["doctor"])))
    parts.append("\n".join(_records()))
    parts.append("\n".join(_verify(by_how["verify"])))
    parts.append("Next: the work around them, in [operator-guide.md](operator-guide.md).")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _exits() -> Iterator[str]:
    final = ", ".join(str(int(code)) for code in sorted(FINAL))
    yield "## Exit codes"
    yield ""
    yield f"{final} are final for a gateway: systemd does not start it again."
    yield from _table(
        ("code", "meaning", "what to do"),
        ((str(int(code)), code.meaning, EXITS[code]) for code in ExitCode),
    )


def _errors(found: list[Said]) -> Iterator[str]:
    yield "## Errors"
    yield ""
    yield "By exit code, in the order of the first word that is always the same, with who says it."
    for code in ExitCode:
        mine = [each for each in found if each.word == code.name]
        if mine:
            yield f"\n### Exit code {int(code)}"
            yield from _table(("message", "by"), _merged(mine))


def _file(found: list[Said]) -> Iterator[str]:
    yield "## The gateway file"
    yield ""
    yield "Each has file and line; `wghsm check` shows all at once. [configuration.md](configuration.md) has the keys."
    yield from _table(("message", "what to write"), sorted({(_code(each.text), _code(each.remedy)) for each in found}))


def _plain(title: str, introduction: str, found: list[Said]) -> str:
    return "\n".join([f"## {title}", "", introduction, *_table(("message", "by"), _merged(found))])


def _log(found: list[Said]) -> Iterator[str]:
    yield "## Log"
    yield ""
    yield "`log_level` of the gateway file says from which level on. What ends a gateway is logged as well (above)."
    for level in ("error", "warning", "info"):
        yield f"\n### Level {level}"
        yield from _table(("message", "by"), _merged([each for each in found if each.word == level]))


def _counters() -> Iterator[str]:
    users = _counter_users()
    yield "## Counters"
    yield ""
    yield (
        "In `wghsm status` (`counted`), each process for itself, since the gateway started; zeros are left out. "
        "Most are drops: a few of each are the everyday noise of a network."
    )
    yield from _table(
        ("counter", "by", "what was counted", "what to do"),
        ((f"`{counter}`", ", ".join(sorted(users[counter.name])), *COUNTERS[counter]) for counter in Counter),
    )


def _doctor(found: list[Said]) -> Iterator[str]:
    yield "## Findings of the token doctor"
    yield ""
    yield "[token-doctor.md](token-doctor.md) says what each check does. A red finding may also be an error from above."
    rows = []
    for each in found:
        check, _, level = each.word.rpartition(" ")
        if level != "green":
            rows.append((f"`{check}`" if check.islower() else "several", level, _code(each.text), _code(each.remedy)))
    yield from _table(("check", "level", "finding", "what to do"), sorted(set(rows)))


def _records() -> Iterator[str]:
    yield "## Audit records"
    yield ""
    yield (
        "[audit.md](audit.md#a-record) has their fields. The severity is syslog's; where `result` is not `ok` it is "
        "warning, whatever the kind."
    )
    if missing := set(KINDS) - set(RECORDS):
        raise KeyError(*missing)
    lines = {
        kind: encode(Event(kind=kind, operation="any"), f"any/gateway/{'0' * 32}", 0, 0, FIRST_PREV) for kind in RECORDS
    }
    rows = ((f"`{kind}`", _SEVERITIES[severity(decode(line))], RECORDS[kind]) for kind, line in lines.items())
    yield from _table(("kind", "severity", "what to do"), rows)


def _verify(found: list[Said]) -> Iterator[str]:
    yield "## Problems of an audit log"
    yield ""
    yield "By `wghsm audit verify`; [audit.md](audit.md#verify) says what each kind means. A note is no problem."
    rows = ((f"`{each.word}`" if each.word else "note", _code(each.text)) for each in found)
    yield from _table(("kind", "message"), sorted(set(rows)))


def _merged(found: Iterable[Said]) -> list[tuple[str, str]]:
    """Each text once, with all who say it."""
    said: dict[str, set[str]] = defaultdict(set)
    for each in found:
        said[each.text].update(_owners(each.room))
    return [(_code(text), ", ".join(sorted(said[text]))) for text in sorted(said, key=_sorting)]


def _sorting(text: str) -> tuple[str, str]:
    """By the first word that is not filled in."""
    return text.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ-:[]. \"'").lower(), text


def _owners(room: str) -> tuple[str, ...]:
    _, folder, *rest = Path(room).with_suffix("").parts
    if folder == "tunnel":
        return _TUNNEL.get(rest[0], ("egress", "ingress"))
    return _OWNERS.get(folder, (folder,))


def _counter_users() -> dict[str, set[str]]:
    """Which processes count what, by the name of the counter."""
    users: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "wghsm").rglob("*.py"):
        room = path.relative_to(ROOT).as_posix()
        if room in ("wghsm/ipc/stats.py", "wghsm/auditor/aggregates.py"):
            continue
        for each in ast.walk(ast.parse(path.read_text())):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "Counter":
                users[each.attr].update(_owners(room))
    return users


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _code(text: str) -> str:
    """As code, also where the text itself has backquotes."""
    if not text:
        return ""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page())
