"""The `wghsm` command as an operator runs it, with the SoftHSM token of a test."""

import os
import subprocess
import sys
from collections.abc import Mapping

from tests.json_output import check_json
from wghsm.softhsm_setup import SoftHsmToken

__all__ = ["run", "run_with"]


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
