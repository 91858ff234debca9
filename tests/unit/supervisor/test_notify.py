"""systemd is told what it asks for, and nobody else is."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wghsm.process import Loop
from wghsm.supervisor._notify import Watchdog, tell_systemd


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_the_lines_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + path if abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if abstract else path)
        tell_systemd("READY=1", "STATUS=serving")
        assert systemd.recv(100) == b"READY=1\nSTATUS=serving"


@pytest.mark.parametrize("address", ["", "vsock:1:2", "/nowhere/at/all"])
def test_no_listener_is_no_matter(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    tell_systemd("READY=1")


@pytest.mark.parametrize("pid", ["", str(os.getpid())])
def test_the_watchdog_has_its_pulse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: Loop, pid: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "20000")
        monkeypatch.setenv("WATCHDOG_PID", pid)
        Watchdog(loop)
        assert systemd.recv(100) == b"WATCHDOG=1"
        for _ in range(2):
            loop.run_once()
            assert systemd.recv(100, socket.MSG_DONTWAIT) == b"WATCHDOG=1"


@pytest.mark.parametrize(("interval", "pid"), [("", ""), ("20000", "1"), ("soon", ""), ("-5", "")])
def test_no_pulse_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: Loop, interval: str, pid: str
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", interval)
        monkeypatch.setenv("WATCHDOG_PID", pid)
        Watchdog(loop)
        with pytest.raises(BlockingIOError):
            systemd.recv(100, socket.MSG_DONTWAIT)
