"""The `wghsm` command as an operator runs it, with the SoftHSM token of a test."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from tests.json_output import check_json
from wghsm.softhsm_setup import SoftHsmToken

__all__ = ["run", "run_in_turn", "run_with"]

_IN_TURN = """\
import json, os, sys
import wghsm.cli.key, wghsm.cli.psk
from wghsm.__main__ import main

for words, given in json.load(sys.stdin):
    child = os.fork()
    if child == 0:
        there, here = os.pipe()
        os.write(here, given.encode())
        os.close(here)
        os.dup2(there, 0)
        sys.stdin = open(0)
        sys.argv = ["wghsm", *words]
        main()
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"{words} ended with {status}")
"""


def run(made: SoftHsmToken, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """As run_with, where SoftHSM finds the token."""
    return run_with({**os.environ, **made.environment}, *words, code=code)


def run_with(environment: Mapping[str, str], *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `wghsm WORDS...` without standard input; it must end with `code`, and never with a trace."""
    done = subprocess.run(
        [sys.executable, "-m", "wghsm", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    check_json(words, done.stdout)
    return done


def run_in_turn(made: SoftHsmToken, *commands: tuple[tuple[str, ...], str]) -> None:
    """Run several `wghsm WORDS...`, each with its standard input, as a preparation that must succeed.

    One interpreter loads what they need, and each is a fork of it, so that it is loaded once.
    """
    done = subprocess.run(
        [sys.executable, "-c", _IN_TURN],
        env={**os.environ, **made.environment},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
