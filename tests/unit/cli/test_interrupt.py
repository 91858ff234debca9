"""Ctrl-C before a command has begun, and after it is done: exit code 130 and one line, as while it works."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wghsm import interrupt
from wghsm.exits import ExitCode

PROJECT = Path(__file__).parents[3] / "pyproject.toml"
SCRIPTS = tomllib.loads(PROJECT.read_text())["project"]["scripts"]
"""The programs that are installed, with their modules and functions."""

AT_ONCE = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
"""A module that is interrupted while it is imported."""

UNHEARD = """
import os, signal, weakref
class Thing: pass
thing = Thing()
reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
del thing
raise SystemExit("nobody has heard it")
"""
"""One that is interrupted where Python shows an exception and goes on, as the import system itself can be."""


def python(*words: str, before: str = "", path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program, as its script would; `before` runs first, and `path` has modules in the place of others."""
    program, *rest = words
    module, _, function = SCRIPTS[program].partition(":")
    code = f"import sys\nsys.argv[0] = {program!r}\n{before}\nfrom {module} import {function}\nsys.exit({function}())"
    return subprocess.run(
        [sys.executable, "-c", code, *rest],
        env={**os.environ, **({"PYTHONPATH": str(path)} if path else {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def is_interrupted(done: subprocess.CompletedProcess[str]) -> None:
    assert done.stderr == "\nwghsm: interrupted\n"
    assert done.returncode == ExitCode.INTERRUPTED


@pytest.mark.parametrize("how", [AT_ONCE, UNHEARD])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("click", ["wghsm", "--version"]),
        ("msgspec", ["wghsm", "--help"]),
        ("pydantic", ["wghsm", "check", "x"]),
        ("pkcs11", ["wghsm", "key", "list"]),
        ("click", ["wghsm-quick", "wg0"]),
        ("pydantic", ["wghsm-quick", "wg0"]),
    ],
)
def test_while_it_is_imported(tmp_path: Path, module: str, words: list[str], how: str) -> None:
    (tmp_path / f"{module}.py").write_text(how)
    is_interrupted(python(*words, path=tmp_path))


def test_while_signals_are_imported(tmp_path: Path) -> None:
    (tmp_path / "signal.py").write_text(f"import os; os.kill(os.getpid(), {int(signal.SIGINT)})")
    is_interrupted(python("wghsm", "--version", path=tmp_path))


def test_the_status_is_the_exit_code() -> None:
    assert interrupt.STATUS == ExitCode.INTERRUPTED


def test_the_module_is_the_program(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(AT_ONCE)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    words = [sys.executable, "-m", "wghsm", "--version"]
    is_interrupted(subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False))


@pytest.mark.parametrize(
    "words", [["wghsm", "--version"], ["wghsm", "completion", "bash"], ["wghsm-quick", "--version"]]
)
def test_while_python_ends(words: list[str]) -> None:
    # Where Python waits for threads, which is before all else of its end.
    before = f"import os, threading; threading._register_atexit(os.kill, os.getpid(), {int(signal.SIGINT)})"
    done = python(*words, before=before)
    assert done.stdout
    is_interrupted(done)


@pytest.mark.parametrize("words", [["wghsm", "--version"], ["wghsm-quick", "--version"]])
def test_when_python_has_given_up_its_handlers(words: list[str]) -> None:
    before = f"""
import builtins, os
class Last:
    def __del__(self, kill=os.kill, pid=os.getpid()):
        kill(pid, {int(signal.SIGINT)})
builtins.last = Last()
"""
    done = python(*words, before=before)
    assert done.stdout
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_at_work_can_tidy_up() -> None:
    before = """
import os, signal, wghsm.cli.check
def work(_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("tidied up")
wghsm.cli.check.gateway_file = work
"""
    done = python("wghsm", "check", "x", before=before)
    assert done.stdout == "tidied up\n"
    is_interrupted(done)


def test_one_that_is_ignored_stays_ignored() -> None:
    before = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    ended = f"{before}\nimport atexit; atexit.register(os.kill, os.getpid(), signal.SIGINT)"
    done = python("wghsm", "--version", before=ended)
    assert (done.returncode, done.stderr) == (0, "")
