"""What a run leaves: a table on standard output, and facts that hold on other machines too, in a file of JSON.

Absolute numbers belong to one machine: they are shown in the table, and neither the file nor the page has them.
Called by __main__.
"""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ratios import Ratio
from wghsm import __version__

__all__ = ["Conditions", "results", "table", "versions", "write_page", "write_results"]

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


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


def results(conditions: Conditions, found: Mapping[str, Ratio]) -> dict[str, object]:
    """The document of results.json; `found` has a dotted name for each ratio."""
    ratios = {
        name: {
            "median": round(ratio.median, 3),
            "least": round(min(ratio.rounds), 3),
            "greatest": round(max(ratio.rounds), 3),
            "rounds": [round(value, 3) for value in ratio.rounds],
        }
        for name, ratio in found.items()
    }
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
        "ratios": ratios,
    }


def table(found: Mapping[str, Ratio]) -> str:
    """The table for standard output, with the absolute numbers of this machine."""
    rows = [("what", "wghsm", "wireguard-go", "unit", "ratio", "least to greatest")]
    rows += [
        (
            name,
            f"{ratio.wghsm:.4g}",
            f"{ratio.wireguard_go:.4g}",
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
    text = path.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path.name} has no place for results: {BEGIN} and {END}")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    path.write_text(head + BEGIN + "\n" + "\n".join(_page(found, conditions)) + "\n" + END + tail)


def _page(found: Mapping[str, Ratio], conditions: Conditions) -> Iterator[str]:
    known = versions()
    yield (
        f"wghsm {known['wghsm']} on Python {known['python']} with SoftHSM {known['softhsm']}, against wireguard-go "
        f"{known['wireguard_go']}; kernel {known['kernel']}, {conditions.cores} cores, {conditions.rounds} rounds."
    )
    yield ""
    yield "| wghsm divided by wireguard-go | median | least to greatest |"
    yield "|---|---|---|"
    for name, ratio in found.items():
        yield f"| {_TITLES.get(name, name)} | {ratio.median:.2f} | {min(ratio.rounds):.2f} to {max(ratio.rounds):.2f} |"


_TITLES = {
    "throughput.to_gateway.rate": "TCP, one stream, client to gateway",
    "throughput.to_gateway.cpu_per_gbit": "CPU time per Gbit, client to gateway",
    "throughput.from_gateway.rate": "TCP, one stream, gateway to client",
    "throughput.from_gateway.cpu_per_gbit": "CPU time per Gbit, gateway to client",
    "handshakes.rate": "handshakes a second as responder",
    "handshakes.cpu_per_handshake": "CPU time per handshake",
}
