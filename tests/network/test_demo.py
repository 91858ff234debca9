"""script/demo does the whole job, and takes everything away again: also when it is interrupted."""

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network.support import Lab, Process, until

ROOT = Path(__file__).parents[2]
WRAPPER = Path(__file__).with_name("support") / "_descendants_process.py"


def start(lab: Lab) -> Process:
    return lab.add(Process([sys.executable, WRAPPER, ROOT / "script/demo"], lab.scratch, "demo"))


def demos_id(process: Process) -> str:
    """Eight hexadecimal digits that stand in the name of everything the demo makes."""
    found = re.search(r"wghsm-demo-([0-9a-f]{8})", process.stdout())
    return found[1] if found else ""


def leftovers(ident: str) -> Iterator[str]:
    """What of the demo `ident` is still there."""
    for folder, pattern in (
        ("/tmp", f"*{ident}*"),  # noqa: S108
        ("/run/netns", f"*{ident}*"),
        ("/run/wghsm", f"*{ident}*"),
        ("/var/run/wireguard", f"*{ident}*"),
        ("/var/lib/wghsm", f"*{ident}*"),
        ("/sys/class/net", f"*{ident}*"),
    ):
        yield from map(str, Path(folder).glob(pattern))


def said(process: Process) -> str:
    return process.stdout()[-6000:] + process.stderr()[-3000:]


def test_the_demo_passes_and_leaves_nothing(lab: Lab) -> None:
    demo = start(lab)
    code = demo.wait(300)
    assert code == 0, said(demo)
    text = demo.stdout()
    ident = demos_id(demo)
    assert ident
    assert not list(leftovers(ident))
    # The parts of the main job, in the demo's own words and the commands'.
    for part in (
        "0% packet loss",
        "latest handshake",
        "new handshake with",
        "CKA_SENSITIVE:",
        "CKR_ATTRIBUTE_SENSITIVE",
        "==> done",
    ):
        assert part in text, f"{part!r} is missing in:\n{said(demo)}"
    hashes = re.findall(r"\b([0-9a-f]{64})  (?:sent|received)\b", text)
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]
    assert "Traceback" not in text + demo.stderr()


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("key generate", signal.SIGINT, 130),
        ("starting the gateway", signal.SIGINT, 130),
        ("copying a file", signal.SIGINT, 130),
        ("copying a file", signal.SIGTERM, 143),
    ],
)
def test_an_interrupted_demo_leaves_nothing(lab: Lab, moment: str, number: signal.Signals, code: int) -> None:
    demo = start(lab)
    group = int(demo_group(demo))

    def reached() -> bool:
        assert demo.returncode is None, said(demo)
        return moment in demo.stdout()

    until(reached, f"the demo says {moment!r}", limit=120)
    ident = demos_id(demo)
    # As a terminal does it: the whole group at once.
    os.killpg(group, number)
    assert demo.wait(60) == code, said(demo)
    assert ident
    assert not list(leftovers(ident)), said(demo)
    assert "cleaning up" in demo.stdout()


def demo_group(process: Process) -> str:
    """The process group of the demo, from the wrapper's first line."""
    return until(lambda: process.stderr().partition("\n")[0] if "\n" in process.stderr() else None, "the demo starts")
