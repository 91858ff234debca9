"""`wghsm check`: what it prints and its exit status."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.json_output import check_json
from tests.unit.config.samples import GOOD


@pytest.fixture
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp") as name:
        path = Path(name) / "gw.yaml"
        path.write_text(GOOD)
        path.chmod(0o644)
        yield path


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wghsm", "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    check_json(["check", *arguments], done.stdout)
    return done


def test_a_good_file(file: Path) -> None:
    done = check(str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: ok, wg0, port 51820, 2 peers, key 'gateway'\n"


def test_a_good_file_in_json(file: Path) -> None:
    done = check(str(file), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "file": str(file),
        "ok": True,
        "interface": "wg0",
        "peers": ["alice", "bob"],
        "warnings": [],
    }


def test_all_problems_on_standard_error_with_exit_status_2(file: Path) -> None:
    file.write_text(GOOD.replace("mtu: 1420", "mtu: 1").replace("version: 1", "version: 9"))
    done = check(str(file))
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{file}:1: ")
    assert second.startswith(f"{file}:11: mtu 1 is out of range; write ")


def test_problems_in_json(file: Path) -> None:
    file.write_text(GOOD.replace("mtu: 1420", "mtu: 1"))
    done = check(str(file), "--json")
    assert (done.returncode, done.stderr) == (2, "")
    said = json.loads(done.stdout)
    assert said["ok"] is False
    assert [(problem["line"], set(problem)) for problem in said["problems"]] == [
        (11, {"file", "line", "message", "remedy"})
    ]


def test_a_warning_leaves_the_file_usable(file: Path) -> None:
    file.chmod(0o666)
    done = check(str(file))
    assert done.returncode == 0
    assert done.stderr.startswith(f"warning: {file}: anybody may write this file")


def test_a_missing_file(file: Path) -> None:
    done = check(str(file) + ".no")
    assert done.returncode == 2
    assert done.stderr == f"{file}.no: there is no such file; check the path, or start from an example in configs/\n"
