"""UDP sockets on one port, listening UNIX sockets, and the lock: made, refused, removed."""

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wghsm.exits import ExitCode
from wghsm.supervisor import GatewayFault, running_pid, runtime_directory
from wghsm.supervisor._runtime import GatewayLock
from wghsm.supervisor._sockets import UdpPair, UnixListener


@pytest.fixture
def pair() -> Iterator[UdpPair]:
    made = UdpPair(0, 0x77)
    yield made
    made.close()


def sockets(pair: UdpPair) -> list[socket.socket]:
    return [socket.socket(fileno=os.dup(fd)) for fd in pair.descriptors]


def test_both_families_have_one_port(pair: UdpPair) -> None:
    assert pair.families == ["4", "6"]
    assert not any(os.get_blocking(fd) for fd in pair.descriptors)
    four, six = sockets(pair)
    with four, six:
        assert four.getsockname()[1] == six.getsockname()[1] == pair.port > 0
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) == 1
        assert four.getsockopt(socket.IPPROTO_IP, 8) == 1
        for sock in (four, six):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x77
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 4 * 1024 * 1024


def test_the_mark_holds_for_copies(pair: UdpPair) -> None:
    four, six = sockets(pair)
    with four, six:
        pair.mark(5)
        assert [sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) for sock in (four, six)] == [5, 5]


def test_a_taken_port_is_an_error(pair: UdpPair) -> None:
    with pytest.raises(OSError, match="in use") as caught:
        UdpPair(pair.port, 0)
    assert caught.value.errno == errno.EADDRINUSE


def test_a_port_that_is_taken_for_ipv6_only_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        port = taken.getsockname()[1]
        real, asked = socket.socket.bind, []

        def bind(sock: socket.socket, address: tuple[str, int]) -> None:
            asked.append(address)
            # The kernel's first choice for IPv4 is the very port that IPv6 cannot have.
            real(sock, (address[0], port) if len(asked) == 1 else address)

        monkeypatch.setattr(socket.socket, "bind", bind)
        pair = UdpPair(0, 0)
        monkeypatch.undo()
        assert pair.port != port
        assert pair.families == ["4", "6"]
        pair.close()


def test_a_listener_is_for_root_alone_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "wgt.sock"
    listener = UnixListener(path)
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) & 0o077 == 0
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


def test_nobody_finds_a_listener_before_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wgt.sock"
    listen = socket.socket.listen

    def look_first(sock: socket.socket, backlog: int) -> None:
        # wg(8) takes away what refuses it, and looks for `.sock` at the end of a name.
        assert not list(tmp_path.glob("*.sock"))
        listen(sock, backlog)

    monkeypatch.setattr(socket.socket, "listen", look_first)
    for _ in range(2):
        listener = UnixListener(path)
        assert listener.is_there()
        assert [each.name for each in tmp_path.iterdir()] == ["wgt.sock"]
        listener.close()
    # What a crash in between has left is in nobody's way.
    (tmp_path / ".wgt.sock.new").touch()
    UnixListener(path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_live_socket_is_refused_and_a_stale_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "wgt.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(GatewayFault, match=r"another program serves wgt") as caught:
            UnixListener(path)
        assert caught.value.exit_code == ExitCode.ALREADY_RUNNING
    assert path.exists()
    UnixListener(path).close()


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "wgt.sock"
    path.write_text("precious")
    with pytest.raises(GatewayFault, match="no socket"):
        UnixListener(path)
    assert path.read_text() == "precious"


def test_a_socket_of_somebody_else_is_not_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "wgt.sock"
    listener = UnixListener(path)
    path.unlink()
    path.write_text("another one")
    listener.close()
    assert path.exists()


@pytest.fixture
def name() -> Iterator[str]:
    unique = f"wgl{os.getpid()}"
    yield unique
    folder = runtime_directory(unique)
    (folder / "lock").unlink(missing_ok=True)
    if folder.exists():
        folder.rmdir()


def test_one_gateway_of_a_name(name: str) -> None:
    assert running_pid(name) is None
    lock = GatewayLock(name)
    assert running_pid(name) == os.getpid()
    with pytest.raises(GatewayFault, match=rf"{name} is running \(pid {os.getpid()}\).*wghsm down {name}") as caught:
        GatewayLock(name)
    assert caught.value.exit_code == ExitCode.ALREADY_RUNNING
    lock.release()
    assert running_pid(name) is None
    assert not runtime_directory(name).exists()


def test_a_killed_gateway_s_lock_is_free(name: str) -> None:
    program = (
        "import os, signal; from wghsm.supervisor._runtime import GatewayLock; "
        f"lock = GatewayLock({name!r}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert (runtime_directory(name) / "lock").exists()
    assert running_pid(name) is None
    GatewayLock(name).release()
