"""Commands whose module crashes, ends the process or hangs: one line, and Ctrl-C is heard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.network.support import until
from tests.token.command import run
from tests.token.custodian_process import PATIENCE, UID
from tests.token.rig import RigToken, rig_token
from wghsm.exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=[None, UID], ids=["own store", "store of another user"])
def made(request: pytest.FixtureRequest) -> Iterator[RigToken]:
    with rig_token(uid=request.param) as token:
        yield token


@pytest.fixture
def token(made: RigToken) -> Iterator[RigToken]:
    yield made
    made.rig.clear()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("C_GetSlotList", ["token", "list"]),
        ("C_Login", ["key", "list"]),
        ("C_GenerateKeyPair", ["key", "generate", "another"]),
        ("C_GenerateKey", ["psk", "derive-root", "another"]),
    ],
)
def test_a_module_that_crashes_costs_one_line(token: RigToken, function: str, words: list[str]) -> None:
    token.rig.crash(function)
    done = run(token.made, *words, "--token", token.made.uri, code=ExitCode.TOKEN_UNUSABLE)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == (
        f"wghsm: token 'gw': its module {token.made.module} has crashed (SIGSEGV); wghsm token doctor says where"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_module_that_hangs_ends_with_its_command(token: RigToken, number: int, code: int) -> None:
    run(token.made, "key", "list", "--token", token.made.uri)
    before = token.rig.calls("C_Login")
    token.rig.hang("C_Login")
    command = subprocess.Popen(
        [sys.executable, "-m", "wghsm", "key", "list", "--token", token.made.uri],
        env={**os.environ, **token.made.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        until(lambda: token.rig.calls("C_Login") > before, "the login", PATIENCE)
        (child,) = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        command.send_signal(number)
        assert command.wait(PATIENCE) == code
        until(lambda: _is_over(child), "the end of the child", PATIENCE)
    finally:
        command.kill()
        command.wait()


def _is_over(process: str) -> bool:
    """Whether a process has ended, be it that nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
