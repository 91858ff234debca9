"""What is left of root after a drop, and of the supervisor's after it was reduced."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wghsm.process.privileges import Capability

PROGRAM = Path(__file__).with_name("programs.py")
SIGKILL = 9


def run(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("lock", ["lock", "plain"])
def test_nothing_is_left_of_root(lock: str) -> None:
    (left,) = run("dropped", lock)
    kept = 1 << Capability.IPC_LOCK if lock == "lock" else 0
    assert left["uid"] == ["61199"] * 4
    assert left["gid"] == ["61198"] * 4
    assert left["groups"] == []
    assert left["permitted"] == left["effective"] == left["bounding"] == kept
    assert left["inheritable"] == left["ambient"] == 0
    assert left["no_new_privs"] == 1
    assert left["dumpable"] == 0
    assert left["death"] == SIGKILL
    assert left["core"] == [0, 0]


def test_memory_is_locked_only_where_keys_live() -> None:
    # In KiB; eight of the MiB were touched by the program itself.
    assert run("dropped", "lock")[0]["locked"] > 8 * 1024
    assert run("dropped", "plain")[0]["locked"] == 0


def test_a_child_whose_parent_is_gone_does_not_begin() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "orphan"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "refused\n"


def test_reduced_holds_for_programs_started_later() -> None:
    here, started = run("reduced")
    kept = 1 << Capability.KILL | 1 << Capability.SETPCAP
    for left in (here, started):
        assert left["uid"] == ["0"] * 4
        assert left["permitted"] == left["effective"] == left["bounding"] == kept
        assert left["core"] == [0, 0]
    assert here["dumpable"] == 0
