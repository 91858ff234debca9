"""What a run leaves: a table on standard output, and facts that hold on other machines too, in a file of JSON.

Absolute numbers belong to one machine: they are shown in the table, and neither the file nor the page has them.
Called by __main__.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ratios import Ratio
from benchmarks.token_rate import VALUES
from wghsm import __version__

__all__ = [
    "FLOODS",
    "Conditions",
    "flood_results",
    "put_between",
    "ratios_of",
    "results",
    "table",
    "titles",
    "token_results",
    "versions",
    "write_flood_page",
    "write_page",
    "write_results",
    "write_token_page",
]

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
TOKEN_BEGIN, TOKEN_END = "<!-- token: begin -->", "<!-- token: end -->"
FLOOD_BEGIN, FLOOD_END = "<!-- flood: begin -->", "<!-- flood: end -->"


@dataclass(frozen=True)
class Conditions:
    """How a run was made; `seconds` is the length of one sample."""

    rounds: int
    seconds: int
    cores: int
    peers: int
    quick: bool


def versions() -> dict[str, str]:
    """What was measured, with what, without a name of this machine."""
    import cryptography
    from cryptography.hazmat.backends.openssl import backend

    return {
        "wghsm": __version__,
        "wireguard_go": _version("wireguard-go", "--version"),
        "softhsm": _version("softhsm2-util", "--version"),
        "python": platform.python_version(),
        "cryptography": cryptography.__version__,
        "openssl": backend.openssl_version_text().split()[1],
        "kernel": ".".join(os.uname().release.split(".")[:2]),
    }


def _version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def results(conditions: Conditions, found: Mapping[str, Ratio]) -> dict[str, Any]:
    """The document of results.json; `found` has a dotted name for each ratio."""
    return {
        "version": 1,
        "compared": "wghsm divided by wireguard-go",
        "conditions": {
            "rounds": conditions.rounds,
            "seconds": conditions.seconds,
            "cores": conditions.cores,
            "peers": conditions.peers,
            "quick": conditions.quick,
        },
        "versions": versions(),
        "ratios": _ratios(found),
    }


def token_results(found: Mapping[str, Ratio], rounds: int, seconds: float) -> dict[str, object]:
    """What the same document says of the custodian and the bare token; `seconds` is the length of one sample."""
    return {
        "compared": "custodian divided by what the bare token's derives allow",
        "conditions": {"rounds": rounds, "seconds": seconds},
        "ratios": _ratios(found),
    }


def flood_results(found: Mapping[str, Ratio], rounds: int, seconds: float) -> dict[str, object]:
    """What the same document says of a stream beside a flood; `seconds` is the length of one sample."""
    return {
        "compared": "a stream beside a flood, divided by the same beside a flood that nobody reads",
        "conditions": {"rounds": rounds, "seconds": seconds},
        "ratios": _ratios(found),
    }


def _ratios(found: Mapping[str, Ratio]) -> dict[str, object]:
    return {
        name: {
            "median": round(ratio.median, 3),
            "least": round(min(ratio.rounds), 3),
            "greatest": round(max(ratio.rounds), 3),
            "rounds": [round(value, 3) for value in ratio.rounds],
        }
        for name, ratio in found.items()
    }


def ratios_of(document: Mapping[str, Any]) -> dict[str, Ratio]:
    """The ratios that a document holds, without the absolute numbers that they come from."""
    return {
        name: Ratio(tuple(values["rounds"]), values["median"], 1.0, "") for name, values in document["ratios"].items()
    }


def table(found: Mapping[str, Ratio], ours: str = "wghsm", theirs: str = "wireguard-go") -> str:
    """The table for standard output, with the absolute numbers of this machine."""
    rows = [("what", ours, theirs, "unit", "ratio", "least to greatest")]
    rows += [
        (
            name,
            f"{ratio.ours:.4g}",
            f"{ratio.theirs:.4g}",
            ratio.unit,
            f"{ratio.median:.3f}",
            f"{min(ratio.rounds):.3f} to {max(ratio.rounds):.3f}",
        )
        for name, ratio in found.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_results(path: Path, document: Mapping[str, object]) -> None:
    """Write the document."""
    path.write_text(json.dumps(document, indent=2) + "\n")


def write_page(path: Path, found: Mapping[str, Ratio], conditions: Conditions) -> None:
    """Put the ratios between the two marks of the page. Raises ValueError when it has no marks."""
    put_between(path, BEGIN, END, _page(found, conditions))


def write_token_page(path: Path, found: Mapping[str, Ratio], rounds: int) -> None:
    """Put the ratios of custodian and bare token between their marks. Raises ValueError when there are none."""
    put_between(path, TOKEN_BEGIN, TOKEN_END, _token_page(found, rounds))


def write_flood_page(path: Path, found: Mapping[str, Ratio], rounds: int) -> None:
    """Put what is left of a stream beside a flood between its marks. Raises ValueError when there are none."""
    put_between(path, FLOOD_BEGIN, FLOOD_END, _flood_page(found, rounds))


def put_between(path: Path, begin: str, end: str, lines: Iterable[str]) -> None:
    """Put lines between two marks of a page. Raises ValueError when the marks are not there."""
    text = path.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{path.name} has no place for results: {begin} and {end}")
    head, _, rest = text.partition(begin)
    tail = rest.partition(end)[2]
    path.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail)


def _token_page(found: Mapping[str, Ratio], rounds: int) -> Iterator[str]:
    """One row for each delay and number of sessions, from names such as `1ms.4.cached.rate`."""
    known = versions()
    yield (
        f"wghsm {known['wghsm']} on Python {known['python']} with SoftHSM {known['softhsm']}; wireguard-go "
        f"{known['wireguard_go']}; {rounds} rounds."
    )
    yield ""
    values = ("rate", "of wireguard-go's", "CPU outside", "over the least")
    columns = ["delay a call", "sessions", *(part for value in values for part in (f"{value}: one derive", "two"))]
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    rows: dict[tuple[str, str], dict[str, Ratio]] = {}
    for name, ratio in found.items():
        delay, sessions, rest = name.split(".", 2)
        rows.setdefault((delay, sessions), {})[rest] = ratio
    for (delay, sessions), row in rows.items():
        cells = [row[f"{kind}.{value}"].median for value in VALUES for kind in ("cached", "plain")]
        yield f"| {delay.removesuffix('ms')} ms | {sessions} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


def _flood_page(found: Mapping[str, Ratio], rounds: int) -> Iterator[str]:
    """One row for each flood, from names such as `wghsm.initiations.rate`."""
    known = versions()
    yield (
        f"wghsm {known['wghsm']} on Python {known['python']} with SoftHSM {known['softhsm']}; wireguard-go "
        f"{known['wireguard_go']}; {rounds} rounds."
    )
    yield ""
    yield "| beside the stream | wghsm keeps | least to greatest | wireguard-go keeps | CPU time, ours / its |"
    yield "|---|---|---|---|---|"
    for name, words in FLOODS.items():
        ours, theirs = found[f"wghsm.{name}.rate"], found.get(f"wireguard-go.{name}.rate")
        cpu = found.get(f"{name}.cpu")
        cells = [f"{ours.median:.2f}", _range(ours), *(f"{one.median:.2f}" if one else "" for one in (theirs, cpu))]
        yield f"| {words} | " + " | ".join(cells) + " |"


def _range(ratio: Ratio) -> str:
    return f"{min(ratio.rounds):.2f} to {max(ratio.rounds):.2f}"


def _page(found: Mapping[str, Ratio], conditions: Conditions) -> Iterator[str]:
    known = versions()
    yield (
        f"wghsm {known['wghsm']} on Python {known['python']} with SoftHSM {known['softhsm']}, against wireguard-go "
        f"{known['wireguard_go']}; kernel {known['kernel']}, {conditions.cores} cores, {conditions.rounds} rounds."
    )
    yield ""
    yield "| wghsm divided by wireguard-go | median | least to greatest |"
    yield "|---|---|---|"
    words = titles(found)
    for name, ratio in found.items():
        yield f"| {words[name]} | {ratio.median:.2f} | {_range(ratio)} |"


def titles(names: Iterable[str]) -> dict[str, str]:
    """Words for the dotted names of ratios; the first part only says which measurement it is of."""
    return {
        name: _HANDSHAKES.get(name) or ", ".join(_WORDS.get(part, part) for part in name.split(".")[1:])
        for name in names
    }


FLOODS = {
    "initiations": "25,000 initiations a second with a good mac1, from 2,000 addresses",
    "junk-mac2": "the same with a mac2 of random bytes",
    "garbage": "25,000 random messages a second, some with a type or an unknown index",
    "storm": "1,000 handshakes a second, of 200 peers",
    "slow-token": "50 handshakes a second, and each derive of the token takes 100 ms longer",
    "slow-storm": "1,000 handshakes a second, and each derive of the token takes 100 ms longer",
}
"""Words for the floods, by the names of their cases."""

_HANDSHAKES = {
    "handshakes.rate": "handshakes a second as responder",
    "handshakes.cpu_per_handshake": "CPU time per handshake",
}

_WORDS = {
    "pure": "pure Python",
    "tcp4": "TCP over IPv4",
    "tcp6": "TCP over IPv6",
    "udp64": "64-byte packets",
    "1": "1 stream",
    "4": "4 streams",
    "out": "initiator sends",
    "back": "responder sends",
    "ping": "ping -f",
    "rate": "rate",
    "time": "round trip",
    "cpu_per_gbit": "CPU time per Gbit",
    "cpu_per_packet": "CPU time per packet",
    "pss": "PSS",
}
