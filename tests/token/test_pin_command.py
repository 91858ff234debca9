"""`pin-source=command:`: what a program may be, what it is given, and the one line when it gives no PIN."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import PinUnavailable, TokenUri, open_pin
from wghsm.pkcs11_backend._pin_command import run_pin_command
from wghsm.softhsm_setup import softhsm_token

_Make = Callable[[str], str]


@pytest.fixture
def program(tmp_path: Path) -> _Make:
    """Writes a shell script and gives its path."""

    def make(body: str) -> str:
        path = tmp_path / "pin-program"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def secret_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    yield


def _refused(source: str) -> str:
    with pytest.raises(PinUnavailable) as caught:
        open_pin(source).read()
    assert caught.value.exit_code is ExitCode.BAD_CONFIG
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("body", "pin"),
    [
        ("echo 1234", b"1234"),
        ("printf 1234", b"1234"),
        ("printf ' a b \\n'", b" a b "),
        ("echo all is well >&2; printf 12; printf 34", b"1234"),
        ("printf '%255s\\n' | tr ' ' 9", b"9" * 255),
    ],
)
def test_its_output_is_the_pin(program: _Make, body: str, pin: bytes) -> None:
    with open_pin(f"command:{program(body)}") as source:
        assert not source.typed
        assert not source.pinpad
        read = source.read()
    assert isinstance(read, bytearray)
    assert read == pin


def test_arguments_stand_in_the_uri(program: _Make) -> None:
    path = program('echo "$#:$1:$2"')
    uri = TokenUri.parse(f"pkcs11:token=gw?module-path=/m.so&pin-source=command:{path}%20*%20$HOME")
    assert uri.pin_source == f"command:{path} * $HOME"
    assert TokenUri.parse(str(uri)) == uri
    # No shell has looked at them.
    assert open_pin(uri.pin_source).read() == b"2:*:$HOME"


@pytest.mark.usefixtures("secret_environment")
def test_it_inherits_nothing(program: _Make) -> None:
    held = os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 177)
    os.set_inheritable(held, True)
    try:
        body = "cat /proc/self/environ | tr '\\0\\n' ';;'; printf %s \"$(pwd):$(umask):$(readlink /proc/$$/fd/0)\""
        said = open_pin(f"command:{program(body)}").read().decode()
        found = open_pin(f"command:{program('echo /proc/$$/fd/*')}").read().decode().split()
    finally:
        os.close(held)
    assert "SECRET_OF_THE_CALLER" not in said
    assert {word.partition("=")[0] for word in said.split(";")[:-1]} <= {"PATH", "LANG", "HOME", "PWD"}
    assert said.endswith("/:0077:/dev/null")
    assert not [path for path in found if path.endswith("/177")]


def test_what_it_leaves_behind_is_not_waited_for(program: _Make, tmp_path: Path) -> None:
    body = f"sleep 600 & echo $! > {tmp_path}/left; echo 1234"
    began = time.monotonic()
    try:
        assert open_pin(f"command:{program(body)}").read() == b"1234"
        assert time.monotonic() - began < 300
    finally:
        os.kill(int((tmp_path / "left").read_text()), 9)


def test_a_command_that_hangs_is_ended_with_its_children(program: _Make, tmp_path: Path) -> None:
    path = program(f"sleep 600 & echo $! > {tmp_path}/child; echo 1234; wait")
    with pytest.raises(PinUnavailable, match="did not end within 2 s"):
        run_pin_command(path, 258, seconds=2)
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    deadline = time.monotonic() + 60
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("exit 3", "failed (exit status 3) without a message"),
        ("echo one >&2; echo 'two: no card' >&2; exit 1", "failed (exit status 1): two: no card"),
        ("printf 'a\\033[2Jb\\n' >&2; exit 1", "a?[2Jb"),
        ("printf '%9999s' >&2 | tr ' ' x; exit 1", "failed (exit status 1)"),
        ("kill -9 $$", "failed (signal 9)"),
        ("true", "it is empty"),
        ("echo", "it is empty"),
        ("echo 1; echo 2", "one line"),
        ("yes", "more than a PIN"),
    ],
)
def test_what_gives_no_pin_says_why(program: _Make, body: str, said: str) -> None:
    line = _refused(f"command:{program(body)}")
    assert said in line
    assert len(line) < 500


def test_a_pin_is_not_shown_when_the_command_fails(program: _Make) -> None:
    for body in ("echo s3cr3t; exit 1", "echo s3cr3t; echo 'is it s3cr3t ?' >&2; exit 1"):
        line = _refused(f"command:{program(body)}")
        assert "s3cr3t" not in line
        assert "exit status 1" in line


def test_only_a_program_that_nobody_else_can_replace(program: _Make, tmp_path: Path) -> None:
    path = Path(program("echo 1234"))
    changes: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: path.chmod(0o775), f"others can write {path}; chmod go-w"),
        (lambda: path.chmod(0o757), "others can write"),
        (lambda: path.chmod(0o644), "chmod 755"),
        (lambda: os.chown(path, 61100, 61100), "belongs to uid 61100"),
        (lambda: tmp_path.chmod(0o777), f"others can write {tmp_path}"),
        (lambda: os.chown(tmp_path, 61100, 0), f"{tmp_path} belongs to uid 61100"),
        (path.unlink, "No such file"),
        (path.mkdir, "not a program"),
    )
    for change, said in changes:
        change()
        assert said in _refused(f"command:{path}")
        os.chown(tmp_path, 0, 0)
        tmp_path.chmod(0o700)
        if path.is_file():
            os.chown(path, 0, 0)
            path.chmod(0o755)
            assert open_pin(f"command:{path}").read() == b"1234"


def test_a_link_is_followed_to_what_it_runs(program: _Make, tmp_path: Path) -> None:
    path = Path(program("echo 1234"))
    (tmp_path / "link").symlink_to(path)
    assert open_pin(f"command:{tmp_path}/link").read() == b"1234"
    path.chmod(0o777)
    assert f"others can write {path}" in _refused(f"command:{tmp_path}/link")


@pytest.mark.parametrize("command", ["pin", "./pin", "/bin/echo  x", "/bin/echo ", " /bin/echo"])
def test_a_command_is_an_absolute_path_and_words(command: str) -> None:
    assert "absolute path" in _refused(f"command:{command}")


def test_what_cannot_be_executed(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no program")
    path.chmod(0o755)
    assert "cannot be started" in _refused(f"command:{path}")


def test_a_login_with_it(program: _Make) -> None:
    with softhsm_token(pin=bytearray(b"by-command-77")) as made:
        uri = made.uri.partition("&pin-source")[0] + f"&pin-source=command:{program('echo by-command-77')}"
        done = subprocess.run(
            [sys.executable, "-m", "wghsm", "key", "list", "--token", uri, "--json"],
            env={**os.environ, **made.environment},
            capture_output=True,
            check=False,
        )
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], b"")


def test_an_opened_command_is_forgotten_when_closed(program: _Make) -> None:
    source = open_pin(f"command:{program('echo 1234')}")
    had = source._had
    assert had is not None
    assert re.fullmatch(rb"1234\n", had)
    source.close()
    assert not any(had)
