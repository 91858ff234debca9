"""The control process whole, with its supervisor and custodian played by the test: policy, order, clients."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wghsm.control import _server, _service
from wghsm.control._policy import psk_label
from wghsm.control._server import Connection, Server
from wghsm.control._service import Service
from wghsm.ipc import messages as m
from wghsm.process import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OWN_PRIVATE = bytes([0x77] * 32)
OWN = X25519PrivateKey.from_private_bytes(OWN_PRIVATE).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
PEER, OTHER = b"\x0a" * 32, b"\x0b" * 32
PSK = "cd" * 32


def peer_view(key: bytes, psk: Literal["none", "object"] = "none") -> m.PeerView:
    return m.PeerView("alice", key, psk, None, 0, ["10.0.0.2/32"], 0, 1, 2)


@dataclass
class Processes:
    """Stands for the supervisor and the custodian behind `Requests`."""

    peers: list[m.PeerView] = field(default_factory=list)
    said: list[tuple[str, object]] = field(default_factory=list)
    answers: list[Callable[[], None]] = field(default_factory=list)
    askers: list[m.Asker | None] = field(default_factory=list)
    change_errno: int = 0
    check_errno: int = 0
    put_errno: int = 0

    def device(self, answer: Callable[[m.DeviceView, list[m.PeerView]], None]) -> None:
        self.answers.append(lambda: answer(m.DeviceView("wg0", OWN, 51820, 0, True), self.peers))

    def status(self, answer: Callable[[m.StatusPart], None]) -> None:
        token = m.TokenStatus("ready", 10**9, "", 3, 2, 1)
        processes = [m.ProcessView("egress", 7, "ready", 1, 2 * 10**9, "compiled")]
        self.answers.append(lambda: answer(m.StatusPart(1, 10**9, "gw.yaml", processes, token, {"egress": {"x": 1}})))

    def change(
        self,
        change: m.DeviceChange,
        answer: Callable[[int, str], None],
        *,
        check_only: bool = False,
        who: m.Asker | None = None,
    ) -> None:
        self.askers.append(who)
        self.said.append(("check" if check_only else "change", change))
        self.answers.append(lambda: answer(self.check_errno if check_only else self.change_errno, "why"))

    def rekey(self, peers: list[bytes] | None, answer: Callable[[int, str], None]) -> None:
        self.said.append(("rekey", peers))
        self.answers.append(lambda: answer(0, "asked 1 peer"))

    def stop(self, answer: Callable[[int, str], None], who: m.Asker | None = None) -> None:
        self.askers.append(who)
        self.said.append(("stop", None))
        self.answers.append(lambda: answer(0, ""))

    def put_psk(self, label: str, psk: bytearray, answer: Callable[[int, str], None]) -> None:
        self.said.append(("put", (label, bytes(psk))))
        self.answers.append(lambda: answer(self.put_errno, "token says no"))

    def delete_psk(self, label: str, answer: Callable[[int, str], None]) -> None:
        self.said.append(("delete", label))
        self.answers.append(lambda: answer(0, ""))

    def run(self) -> None:
        while self.answers:
            self.answers.pop(0)()


class Client:
    """A client's socket on one side, a Connection of the service on the other."""

    def __init__(self, loop: Loop, feed: Callable[[Connection], None]) -> None:
        self.loop = loop
        self.sock, other = socket.socketpair()
        other.setblocking(False)
        self.sock.setblocking(False)
        self.closed = False
        self.connection = Connection(loop, other, feed, self._closed)

    def _closed(self, _connection: Connection) -> None:
        self.closed = True

    def send(self, text: str) -> None:
        self.sock.sendall(text.encode())
        self.loop.run_once(0)

    def read(self) -> str:
        self.loop.run_once(0)
        try:
            return self.sock.recv(1 << 20).decode()
        except BlockingIOError:
            return ""


@dataclass
class Setup:
    loop: Loop
    processes: Processes
    service: Service

    def uapi(self) -> Client:
        return Client(self.loop, self.service.feed_uapi)

    def ask(self, text: str) -> str:
        client = self.uapi()
        client.send(text)
        self.processes.run()
        return client.read()

    @property
    def said(self) -> list[tuple[str, object]]:
        return self.processes.said


def make(runtime: bool) -> Iterator[Setup]:
    loop = Loop()
    processes = Processes()
    service = Service(processes, runtime, later=loop.call_later)  # type: ignore[arg-type]
    service.own_public_key = OWN
    yield Setup(loop, processes, service)
    loop.close()


@pytest.fixture
def file_authority() -> Iterator[Setup]:
    yield from make(runtime=False)


@pytest.fixture
def runtime_authority() -> Iterator[Setup]:
    yield from make(runtime=True)


def test_get_answers_with_the_device(file_authority: Setup) -> None:
    file_authority.processes.peers = [peer_view(PEER)]
    answer = file_authority.ask("get=1\n\n")
    assert f"public_key={PEER.hex()}\n" in answer
    assert answer.endswith("errno=0\n\n")
    assert "private_key" not in answer
    assert "preshared_key" not in answer


@pytest.mark.parametrize("key", [bytes(32), OWN_PRIVATE, bytes([OWN_PRIVATE[0] & 248, *OWN_PRIVATE[1:]])])
def test_a_zero_or_the_same_private_key_changes_nothing(file_authority: Setup, key: bytes) -> None:
    assert file_authority.ask(f"set=1\nprivate_key={key.hex()}\n\n") == "errno=0\n\n"
    assert file_authority.said == [("change", m.DeviceChange())]


@pytest.mark.parametrize("runtime", ["file_authority", "runtime_authority"])
def test_another_private_key_is_refused(runtime: str, request: pytest.FixtureRequest) -> None:
    setup: Setup = request.getfixturevalue(runtime)
    assert setup.ask(f"set=1\nprivate_key={'11' * 32}\nfwmark=1\n\n") == f"errno=-{errno.EPERM}\n\n"
    assert setup.said == []


def test_a_private_key_waits_for_the_token_that_it_is_compared_with(file_authority: Setup) -> None:
    setup = file_authority
    setup.service.own_public_key = None
    same, other, third = setup.uapi(), setup.uapi(), setup.uapi()
    same.send(f"set=1\nprivate_key={OWN_PRIVATE.hex()}\n\n")
    other.send(f"set=1\nprivate_key={'11' * 32}\n\n")
    # Who names no key need not wait, nor who names a zero one.
    assert setup.ask(f"set=1\nprivate_key={'00' * 32}\nfwmark=1\n\n") == "errno=0\n\n"
    assert [same.read(), other.read()] == ["", ""]
    setup.service.learn(OWN)
    setup.processes.run()
    assert [same.read(), other.read()] == ["errno=0\n\n", f"errno=-{errno.EPERM}\n\n"]
    assert setup.said == [("change", m.DeviceChange(fwmark=1)), ("change", m.DeviceChange())]
    setup.service.own_public_key = None
    third.send(f"set=1\nprivate_key={OWN_PRIVATE.hex()}\n\n")
    third.send("get=1\n\n")
    assert third.read() == ""


def test_a_private_key_does_not_wait_for_ever(file_authority: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_service, "_PATIENCE", 1)
    setup = file_authority
    setup.service.own_public_key = None
    client = setup.uapi()
    client.send(f"set=1\nprivate_key={OWN_PRIVATE.hex()}\n\n")
    answers = iter(client.read, f"errno=-{errno.EPERM}\n\n")
    assert set(answers) <= {""}
    assert setup.said == []


def test_a_psk_in_clear_is_refused_and_a_zero_one_clears_nothing(file_authority: Setup) -> None:
    refused = file_authority.ask(f"set=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    assert refused == f"errno=-{errno.EPERM}\n\n"
    assert file_authority.said == []
    assert file_authority.ask(f"set=1\npublic_key={PEER.hex()}\npreshared_key={'00' * 32}\n\n") == "errno=0\n\n"
    assert file_authority.said == [("change", m.DeviceChange(peers=[m.PeerChange(PEER)]))]


def test_under_runtime_a_psk_goes_into_the_token_before_the_change(runtime_authority: Setup) -> None:
    answer = runtime_authority.ask(f"set=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    assert answer == "errno=0\n\n"
    label = psk_label(PEER)
    change = m.DeviceChange(peers=[m.PeerChange(PEER, psk=m.PskObject(label))])
    assert runtime_authority.said == [("check", change), ("put", (label, bytes.fromhex(PSK))), ("change", change)]


def test_a_psk_that_the_token_refuses_changes_nothing(runtime_authority: Setup) -> None:
    runtime_authority.processes.put_errno = errno.EIO
    answer = runtime_authority.ask(f"set=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    assert answer == f"errno=-{errno.EIO}\n\n"
    assert verbs(runtime_authority) == ["check", "put"]


def verbs(setup: Setup) -> list[str]:
    return [verb for verb, _ in setup.said]


def test_a_change_that_would_be_refused_never_reaches_the_token(runtime_authority: Setup) -> None:
    runtime_authority.processes.check_errno = errno.EADDRINUSE
    answer = runtime_authority.ask(f"set=1\nlisten_port=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    assert answer == f"errno=-{errno.EADDRINUSE}\n\n"
    assert verbs(runtime_authority) == ["check"]


def test_a_psk_that_replaced_another_is_not_deleted_when_the_change_fails(runtime_authority: Setup) -> None:
    runtime_authority.processes.peers = [peer_view(PEER, "object")]
    runtime_authority.processes.change_errno = errno.EIO
    runtime_authority.ask(f"set=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    assert verbs(runtime_authority) == ["check", "put", "change"]


@pytest.mark.parametrize(
    ("before", "lines", "expected"),
    [
        ("none", f"public_key={PEER.hex()}\npreshared_key={PSK}\npublic_key={PEER.hex()}\nremove=true", ["change"]),
        (None, f"public_key={PEER.hex()}\nupdate_only=true\npreshared_key={PSK}", ["change"]),
        (None, f"public_key={OWN.hex()}\npreshared_key={PSK}", ["change"]),
        ("object", f"public_key={PEER.hex()}\nremove=true\npublic_key={PEER.hex()}", ["change", "delete"]),
        ("object", f"replace_peers=true\npublic_key={PEER.hex()}", ["change"]),
        ("object", f"replace_peers=true\npublic_key={OTHER.hex()}", ["change", "delete"]),
        (
            "object",
            f"public_key={PEER.hex()}\nremove=true\npublic_key={PEER.hex()}\npreshared_key={PSK}",
            ["check", "put", "change"],
        ),
    ],
)
def test_no_psk_is_left_without_its_peer(
    runtime_authority: Setup, before: Literal["none", "object"] | None, lines: str, expected: list[str]
) -> None:
    if before is not None:
        runtime_authority.processes.peers = [peer_view(PEER, before)]
    assert runtime_authority.ask(f"set=1\n{lines}\n\n") == "errno=0\n\n"
    assert verbs(runtime_authority) == expected


def test_the_next_set_waits_until_the_token_has_forgotten(runtime_authority: Setup) -> None:
    runtime_authority.processes.peers = [peer_view(PEER, "object")]
    first, second = runtime_authority.uapi(), runtime_authority.uapi()
    first.send(f"set=1\npublic_key={PEER.hex()}\nremove=true\n\n")
    second.send(f"set=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    runtime_authority.processes.run()
    assert verbs(runtime_authority) == ["change", "delete", "check", "put", "change"]


def test_a_change_that_fails_takes_its_new_psk_back(runtime_authority: Setup) -> None:
    runtime_authority.processes.change_errno = errno.EADDRINUSE
    runtime_authority.ask(f"set=1\nlisten_port=1\npublic_key={PEER.hex()}\npreshared_key={PSK}\n\n")
    assert verbs(runtime_authority) == ["check", "put", "change", "delete"]


def test_the_psk_of_a_removed_peer_leaves_the_token(runtime_authority: Setup) -> None:
    runtime_authority.processes.peers = [peer_view(PEER, "object"), peer_view(OTHER, "none")]
    runtime_authority.ask("set=1\nreplace_peers=true\n\n")
    assert [said for said in runtime_authority.said if said[0] == "delete"] == [("delete", psk_label(PEER))]


def test_a_peer_with_our_own_key_is_ignored(file_authority: Setup) -> None:
    assert file_authority.ask(f"set=1\npublic_key={OWN.hex()}\nallowed_ip=10.0.0.0/8\n\n") == "errno=0\n\n"
    assert file_authority.said == [("change", m.DeviceChange())]


def test_the_supervisors_errno_reaches_the_client_and_closes(file_authority: Setup) -> None:
    file_authority.processes.change_errno = errno.EADDRINUSE
    client = file_authority.uapi()
    client.send("set=1\nlisten_port=1\n\nset=1\nfwmark=1\n\n")
    file_authority.processes.run()
    assert client.read() == f"errno=-{errno.EADDRINUSE}\n\n"
    assert client.closed
    assert len(file_authority.said) == 1


def test_sets_of_two_clients_go_one_after_the_other(file_authority: Setup) -> None:
    first, second = file_authority.uapi(), file_authority.uapi()
    first.send("set=1\nfwmark=1\n\n")
    second.send("set=1\nfwmark=2\n\n")
    assert len(file_authority.said) == 1
    file_authority.processes.run()
    assert [change for _, change in file_authority.said] == [m.DeviceChange(fwmark=1), m.DeviceChange(fwmark=2)]
    assert (first.read(), second.read()) == ("errno=0\n\n", "errno=0\n\n")


def test_a_client_that_left_does_not_stop_the_next_set(file_authority: Setup) -> None:
    first, second = file_authority.uapi(), file_authority.uapi()
    first.send("set=1\nfwmark=1\n\n")
    first.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    first.sock.close()
    file_authority.loop.run_once(0)
    second.send("set=1\nfwmark=2\n\n")
    file_authority.processes.run()
    assert second.read() == "errno=0\n\n"


def test_a_slow_reader_gets_the_whole_answer(file_authority: Setup) -> None:
    file_authority.processes.peers = [peer_view(bytes([n % 251, n // 251] * 16)) for n in range(20_000)]
    client = file_authority.uapi()
    client.send("get=1\n\n")
    file_authority.processes.run()
    answer = bytearray()
    while not answer.endswith(b"errno=0\n\n"):
        file_authority.loop.run_once(0)
        answer += client.sock.recv(50_000)
    assert answer.count(b"\npublic_key=") == 20_000


def test_one_byte_at_a_time(file_authority: Setup) -> None:
    client = file_authority.uapi()
    for letter in "set=1\nfwmark=3\n\n":
        client.send(letter)
    file_authority.processes.run()
    assert client.read() == "errno=0\n\n"


def test_gets_wait_until_the_answers_before_them_are_read(file_authority: Setup) -> None:
    file_authority.processes.peers = [peer_view(bytes([n % 251, n // 251] * 16)) for n in range(20_000)]
    client = file_authority.uapi()
    client.send("get=1\n\n" * 100)
    file_authority.processes.run()
    whole = 20_000 * 300
    assert whole / 2 < client.connection.pending < 2 * whole
    assert file_authority.ask("set=1\nfwmark=1\n\n") == "errno=0\n\n"
    answer = bytearray()
    while answer.count(b"errno=0\n\n") < 2:
        file_authority.loop.run_once(0)
        file_authority.processes.run()
        answer += client.sock.recv(1 << 20)


def test_many_answers_from_within_are_no_deep_matter(file_authority: Setup) -> None:
    client = Client(file_authority.loop, file_authority.service.feed_admin)
    client.send("nonsense\n" * 3000)
    answers = ""
    while answers.count("\n") < 3000:
        answers += client.read()
    assert not client.closed


@pytest.mark.parametrize("text", ["set=1\nfwmark=9\n", "set=1\nfwmark", "get=1\n", "\0\1\2", "set=1\nx=\xff\n\n", "{}"])
def test_a_client_that_breaks_off_changes_nothing_unasked(file_authority: Setup, text: str) -> None:
    broken, whole = file_authority.uapi(), file_authority.uapi()
    broken.sock.sendall(text.encode("latin-1"))
    file_authority.loop.run_once(0)
    whole.send("set=1\nfwmark=1\n\n")
    file_authority.processes.run()
    assert whole.read() == "errno=0\n\n"
    assert file_authority.said == [("change", m.DeviceChange(fwmark=1))]
    broken.sock.close()
    file_authority.loop.run_once(0)
    file_authority.processes.run()
    assert broken.closed


def served(setup: Setup, path: Path) -> tuple[Server, Callable[[], socket.socket]]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(128)
    server = Server(setup.loop, listener, setup.service.feed_uapi)

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        client.setblocking(False)
        setup.loop.run_once(0)
        return client

    return server, connect


def test_silent_clients_do_not_keep_others_out(file_authority: Setup, tmp_path: Path) -> None:
    server, connect = served(file_authority, tmp_path / "wg.sock")
    silent = [connect() for _ in range(_server.MAX_CLIENTS)]
    silent[0].sendall(b"set=1\n")
    file_authority.loop.run_once(0)
    late = connect()
    late.sendall(b"get=1\n\n")
    file_authority.loop.run_once(0)
    file_authority.processes.run()
    assert late.recv(1 << 16).endswith(b"errno=0\n\n")
    # The one that had said something stays; the most silent one is gone.
    assert silent[1].recv(1) == b""
    with pytest.raises(BlockingIOError):
        silent[0].recv(1)
    server.close()
    for client in (*silent, late):
        client.close()


def test_what_waits_for_all_clients_together_is_bounded(
    file_authority: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_server, "_MAX_PENDING_TOGETHER", 3_000_000)
    server, connect = served(file_authority, tmp_path / "wg.sock")
    modest, greedy = connect(), connect()
    for client in (modest, greedy):
        client.sendall(b"set=1\nfwmark=1\n")
        file_authority.loop.run_once(0)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(100):
            greedy.send(b"fwmark=2\n" * 10_000)
            file_authority.loop.run_once(0)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        greedy.send(b"fwmark=2\n")
    modest.sendall(b"\n")
    file_authority.loop.run_once(0)
    file_authority.processes.run()
    assert modest.recv(100) == b"errno=0\n\n"
    server.close()
    for client in (modest, greedy):
        client.close()


def admin(setup: Setup, request: str) -> dict[str, object]:
    client = Client(setup.loop, setup.service.feed_admin)
    client.send(request + "\n")
    setup.processes.run()
    answer: dict[str, object] = json.loads(client.read())
    return answer


def test_admin_status(file_authority: Setup) -> None:
    file_authority.processes.peers = [peer_view(PEER), peer_view(PEER)]
    answer = admin(file_authority, '{"verb": "status"}')
    status = answer["status"]
    assert isinstance(status, dict)
    assert status["name"] == "wg0"
    assert status["token"]["state"] == "ready"
    assert [peer["name"] for peer in status["peers"]] == ["alice"]
    assert status["peers"][0]["latest_handshake"] is None


def test_admin_rekey_and_stop(file_authority: Setup) -> None:
    assert admin(file_authority, '{"verb": "rekey"}')["text"] == "asked 1 peer"
    assert admin(file_authority, '{"verb": "stop"}')["errno"] == 0
    assert file_authority.said == [("rekey", None), ("stop", None)]


@pytest.mark.parametrize("line", ["nonsense", '{"verb": "format"}', '{"verb": "rekey", "peers": ["!"]}', "[]"])
def test_admin_refuses_what_it_does_not_know(file_authority: Setup, line: str) -> None:
    assert admin(file_authority, line)["errno"] == errno.EINVAL
    assert file_authority.said == []
