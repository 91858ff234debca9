"""PIN sources: files, credentials and a terminal; what is refused; what a terminal shows and keeps."""

import os
import pty
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import PinUnavailable, open_pin


def _file(folder: Path, content: bytes, mode: int = 0o600) -> str:
    path = folder / "pin"
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path}"


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.005)


def _echoes(descriptor: int) -> bool:
    return bool(termios.tcgetattr(descriptor)[3] & termios.ECHO)


@pytest.mark.parametrize(
    ("content", "pin"),
    [
        (b"1234", b"1234"),
        (b"1234\n", b"1234"),
        (b" a b ", b" a b "),
        ("gr\u00fc\u00df".encode(), "gr\u00fc\u00df".encode()),
        (b"9" * 255, b"9" * 255),
    ],
)
def test_a_file_gives_its_one_line(tmp_path: Path, content: bytes, pin: bytes) -> None:
    read = open_pin(_file(tmp_path, content)).read()
    assert isinstance(read, bytearray)
    assert read == pin


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"12\n\n", b"1\n2\n", b"1234\r\n", b"1\x0034", b"9" * 256, b"9" * 100_000]
)
def test_a_file_without_one_clean_line_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PinUnavailable) as caught:
        open_pin(_file(tmp_path, content)).read()
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; it must give one line, the PIN, and nothing else")
    assert caught.value.exit_code is ExitCode.BAD_CONFIG


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    source = _file(tmp_path, b"s3cr3t", mode)
    with pytest.raises(PinUnavailable, match=rf"mode {mode:04o}\); chmod 600") as caught:
        open_pin(source)
    assert "s3cr3t" not in str(caught.value)


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    source = _file(tmp_path, b"1234")
    os.chown(tmp_path / "pin", 61100, 61100)
    with pytest.raises(PinUnavailable, match="belongs to uid 61100"):
        open_pin(source)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path, said in (
        (tmp_path / "fifo", "not a regular file; correct pin-source"),
        (tmp_path, "not a regular file; correct pin-source"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(PinUnavailable, match=said):
            open_pin(f"file:{path}")


@pytest.mark.parametrize(
    "source",
    ["", "command:", "protected:x", "file:", "file:pin", "file://host/pin", "env:PIN", "|cat /pin", "credential:"],
)
def test_an_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(PinUnavailable, match="token URI"):
        open_pin(source)


def test_the_long_form_of_a_file_uri(tmp_path: Path) -> None:
    source = _file(tmp_path, b"1234")
    assert open_pin(source.replace("file:", "file://")).read() == b"1234"


def test_an_opened_source_outlives_the_right_to_open_it(tmp_path: Path) -> None:
    with open_pin(_file(tmp_path, b"1234")) as source:
        (tmp_path / "pin").unlink()
        assert not source.typed
        assert source.read() == b"1234"


def test_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hsm-pin").write_bytes(b"1234\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert open_pin("credential:hsm-pin").read() == b"1234"
    for name in ("../pin", "..", "absent"):
        with pytest.raises(PinUnavailable):
            open_pin(f"credential:{name}")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(PinUnavailable, match="LoadCredential=hsm-pin"):
        open_pin("credential:hsm-pin")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_a_prompt_hides_what_is_typed(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    typed: list[bytearray] = []
    source = open_pin("prompt", terminal=slave)
    assert source.typed
    reader = threading.Thread(target=lambda: typed.append(source.read("PIN of gw: ")))
    reader.start()
    _wait_for(lambda: not _echoes(master))
    os.write(master, b"s3cr3t\n")
    reader.join(60)
    assert typed == [bytearray(b"s3cr3t")]
    assert _echoes(master)
    shown = os.read(master, 4096)
    assert b"PIN of gw: " in shown
    assert b"s3cr3t" not in shown


def test_ctrl_c_at_the_prompt_restores_the_echo() -> None:
    child, master = pty.fork()
    if child == 0:
        code = "from wghsm.pkcs11_backend import open_pin; open_pin('prompt').read()"
        os.execv(sys.executable, [sys.executable, "-c", code])  # noqa: S606
    try:
        _wait_for(lambda: not _echoes(master))
        os.write(master, b"s3c\x03")
        _wait_for(lambda: _echoes(master))
        # The child's last words must be read, or it cannot end.
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:
                break
            shown += piece
        assert b"KeyboardInterrupt" in shown
        assert b"s3c" not in shown
    finally:
        os.waitpid(child, 0)
        os.close(master)


def test_a_prompt_needs_a_terminal() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(PinUnavailable, match="no terminal"):
            open_pin("prompt", terminal=reading)
    finally:
        os.close(reading)
        os.close(writing)
