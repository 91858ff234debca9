"""What the doctor found: findings, facts about each token, and what several tokens have to have in common.

Pure values; `doctor` makes them, the command prints them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend.errors import TokenError

__all__ = [
    "Facts",
    "Finding",
    "Found",
    "Level",
    "Step",
    "TokenReport",
    "compare",
    "exit_code",
    "failed",
    "green",
    "red",
    "verdict",
    "yellow",
]

Facts = dict[str, Any]
"""JSON values by name, for a report's `facts`."""


class Level(StrEnum):
    """How bad it is."""

    GREEN = "green"
    YELLOW = "yellow"
    """A gateway serves with it; the operator should know."""
    RED = "red"
    """A gateway does not start, or custody does not hold."""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, why, and what to do where it is not green.

    `exit_code` is what a red finding makes the command end with.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.TOKEN_UNUSABLE

    def as_json(self) -> dict[str, Any]:
        """The finding as the command's --json shows it."""
        return {"check": self.check, "level": str(self.level), "text": self.text, "remedy": self.remedy}


def green(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.GREEN, text)


def yellow(check: str, text: str, remedy: str) -> Finding:
    """A gateway serves with it."""
    return Finding(check, Level.YELLOW, text, remedy)


def red(check: str, text: str, remedy: str) -> Finding:
    """No gateway serves with it, or it keeps no secret."""
    return Finding(check, Level.RED, text, remedy)


_ASK_THE_MODULE = "see the module's own log, then try again"


def failed(check: str, error: TokenError, otherwise: str = _ASK_THE_MODULE) -> Finding:
    """What an error says: reason and remedy, parted at the last semicolon; without one the remedy is `otherwise`."""
    text, _, remedy = str(error).rpartition("; ")
    code = error.exit_code if error.exit_code is not ExitCode.FAILURE else ExitCode.TOKEN_UNUSABLE
    return Finding(check, Level.RED, text or remedy, remedy if text else otherwise, code)


@dataclass(frozen=True)
class Step:
    """A check begins; with `wait` it may take as long as a person at a pinpad."""

    name: str
    wait: bool = False


Found = Finding | Step | Facts
"""What a part of the examination gives, one after the other."""


@dataclass
class TokenReport:
    """All about one token. `facts` are JSON values by name."""

    uri: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The token as messages name it."""
        token = self.facts.get("token")
        return f"token {token['label']!r} (serial {token['serial']})" if isinstance(token, dict) else self.uri

    def as_json(self) -> dict[str, Any]:
        """The report as the command's --json shows it."""
        return {
            "uri": self.uri,
            "verdict": str(verdict(self.findings)),
            **{name: self.facts.get(name) for name in _FACTS},
            "findings": [finding.as_json() for finding in self.findings],
        }


_FACTS = (
    "module",
    "token",
    "flags",
    "mechanisms",
    "key",
    "dialect",
    "public_key",
    "previous_public_key",
    "attributes",
    "psk_check_value",
    "sessions",
    "latency",
)


def verdict(findings: Sequence[Finding]) -> Level:
    """The worst level."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.RED, Level.YELLOW) if level in levels), Level.GREEN)


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """0 without a red finding; else a PIN's code first, then the token's, then another."""
    codes = {finding.exit_code for finding in findings if finding.level is Level.RED}
    ordered = (ExitCode.PIN_REFUSED, ExitCode.TOKEN_UNUSABLE, *sorted(codes))
    return next((code for code in ordered if code in codes), ExitCode.OK)


def compare(reports: Sequence[TokenReport]) -> list[Finding]:
    """Compare the tokens of one gateway by their check values; no finding for a single one."""
    if len(reports) < 2:
        return []
    return [
        _alike(reports, "key-of-twins", "public_key", "key", "clone the key, restore its backup, or import it again"),
        *_beside(reports),
        _distinct(reports),
    ]


_BESIDE = (
    (
        "previous-key-of-twins",
        "previous_public_key",
        "previous key",
        "clone it, restore its backup, or import it again",
    ),
    (
        "psk-root-of-twins",
        "psk_check_value",
        "PSK root",
        "clone the root or restore its backup: with another root every derived PSK is another one",
    ),
    (
        "wrap-key-of-twins",
        "wrap_key_of",
        "wrapping key",
        "clone the key or restore its backup: with another one no wrapped PSK opens",
    ),
)
"""What else twins must hold alike, where the gateway has it: check, fact, name, remedy."""


def _beside(reports: Sequence[TokenReport]) -> list[Finding]:
    return [
        _alike(reports, check, fact, noun, remedy)
        for check, fact, noun, remedy in _BESIDE
        if any(fact in report.facts for report in reports)
    ]


def _alike(reports: Sequence[TokenReport], check: str, fact: str, noun: str, remedy: str) -> Finding:
    known = [report for report in reports if fact in report.facts]
    missing = [report.name for report in reports if fact not in report.facts]
    if not known:
        return Finding(check, Level.RED, f"no token gave its {noun}, so nothing was compared", "mend what is red above")
    first = known[0]
    other = [report.name for report in known if report.facts[fact] != first.facts[fact]]
    if other:
        text = f"the {noun} of {', '.join(other)} is not the one of {first.name}"
        return Finding(check, Level.RED, text, f"{remedy}; or take the token out of the list")
    if missing:
        text = f"the {noun} of {', '.join(missing)} is not known, so it was not compared"
        return Finding(check, Level.RED, text, "mend what is red above")
    made = sorted({_origin(report) for report in known}) if fact == "public_key" else []
    told = f" ({', '.join(made)})" if made else ""
    return Finding(check, Level.GREEN, f"all {len(reports)} tokens have the same {noun}{told}")


def _origin(report: TokenReport) -> str:
    attributes = report.facts.get("attributes")
    local = attributes.get("LOCAL") if isinstance(attributes, dict) else None
    token = report.facts.get("token")
    label = token["label"] if isinstance(token, dict) else report.uri
    if local is None:
        return f"{label}: the token does not say how it came there"
    return f"{label}: made in it or cloned" if local else f"{label}: imported"


def _distinct(reports: Sequence[TokenReport]) -> Finding:
    seen: dict[object, str] = {}
    for place, report in enumerate(reports, 1):
        token = report.facts.get("token")
        identity = repr(sorted(token.items())) if isinstance(token, dict) else report.uri
        if identity in seen:
            text = f"URI {place} leads to the same token as URI {seen[identity]}, so there is nothing to fail over to"
            return Finding("twins", Level.YELLOW, text, "name another token, by its serial if the labels are alike")
        seen[identity] = str(place)
    return Finding("twins", Level.GREEN, f"{len(reports)} different tokens")
