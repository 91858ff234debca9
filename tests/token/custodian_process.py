"""A real custodian process over socket pairs, driven as its supervisor, handshake, egress, ingress and control.

with gateway_token() as token:                 a SoftHSM store of the custodian's own uid, with key, root and PSK
    with Custodian(token, state) as custodian: ...
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from wghsm.ipc import Channel, ChannelClosed, ChannelKind, Counter, Role, StatsFile, create_stats, socket_pair
from wghsm.ipc import messages as m
from wghsm.noise.constants import INITIATION_FLOOD_GUARD
from wghsm.process import boottime
from wghsm.softhsm_setup import softhsm_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.unit.custodian.support import SoftwarePeer

UID = 61100
PATIENCE = 120.0
LABEL_PSK = "wghsm-psk-object"

_PROVISION = """
import json, os, sys
from wghsm.pkcs11_backend import TokenPool, open_pin, TokenUri
from wghsm.pkcs11_backend import provision
from wghsm.pkcs11_backend._objects import CKA
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.wrapping import find_wrap_key, make_wrap_key, wrap_psk
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
# Its backend is imported at the first use, which must not be after the change of the uid.
X25519PrivateKey.generate()
order = json.load(sys.stdin)
uri = TokenUri.parse(order["uri"])
pin = open_pin(uri.pin_source)
os.setgroups([]); os.setresgid(*[order["uid"]] * 3); os.setresuid(*[order["uid"]] * 3)
with TokenPool.open(uri, pin.read(), 1, read_write=True) as pool:
    if "private" in order:
        import_key(pool, "gateway", bytearray.fromhex(order["private"]))
        if "root" in order:
            template = [(CKA["CLASS"], 4), (CKA["KEY_TYPE"], 0x10), (CKA["LABEL"], b"root")]
            template += [(CKA[name], name != "EXTRACTABLE") for name in
                         ("TOKEN", "PRIVATE", "SENSITIVE", "SIGN", "EXTRACTABLE")]
            with pool.control() as calls:
                calls.create([*template, (CKA["VALUE"], bytearray.fromhex(order["root"]))])
        else:
            provision.derive_root(pool, "root")
    if order.get("new"):
        provision.generate_key(pool, "gateway")
        provision.derive_root(pool, "root")
    if "psk" in order:
        provision.put_psk(pool, order["label"], bytearray.fromhex(order["psk"]), replace=True)
    key, root = pool.find_key("gateway"), pool.find_root("root")
    wrapped = []
    if "wrap" in order:
        peer, psk = (bytearray.fromhex(one) for one in order["wrap"])
        if "wrap_key" in order:
            template = [(CKA["CLASS"], 4), (CKA["KEY_TYPE"], 0x1F), (CKA["LABEL"], b"wrap")]
            template += [(CKA[name], name != "EXTRACTABLE") for name in
                         ("TOKEN", "PRIVATE", "SENSITIVE", "ENCRYPT", "DECRYPT", "EXTRACTABLE")]
            with pool.control() as calls:
                calls.create([*template, (CKA["VALUE"], bytearray.fromhex(order["wrap_key"]))])
            wrap_key = find_wrap_key(pool, "wrap")
        else:
            wrap_key = make_wrap_key(pool, "wrap")
        wrapped = [wrap_psk(pool, wrap_key, key.public_key, bytes(peer), 5, psk).hex()]
    with pool.session() as session:
        derived = [
            session.derived_psk(root, key.public_key, bytes.fromhex(peer), 5).hex() for peer in order.get("peers", [])
        ]
print(json.dumps({"public": key.public_key.hex(), "derived": derived, "wrapped": wrapped}))
"""

_M = TypeVar("_M", bound=m.Message)


class Made(Protocol):
    """A token of any module: its URI with pin-source, what its module wants in the environment, its files."""

    @property
    def uri(self) -> str: ...
    @property
    def environment(self) -> Mapping[str, str]: ...
    @property
    def pin_file(self) -> Path: ...
    @property
    def directory(self) -> Path: ...


@dataclass(frozen=True)
class GatewayToken:
    """The store, the gateway's public key and the PSK that lies in it as an object."""

    made: Made
    public_key: bytes
    psk: bytes

    def log_in(self, peers: Sequence[bytes] = ()) -> list[bytes]:
        """Log in with the right PIN in a process of its own; gives the derived PSKs of `peers` for epoch 5."""
        return [bytes.fromhex(one) for one in provision(self.made, peers=[peer.hex() for peer in peers])["derived"]]

    def put_psk(self, label: str, psk: bytes) -> None:
        """Store a PSK in a process of its own, as the operator would."""
        provision(self.made, label=label, psk=psk.hex())

    def pin_count_low(self) -> bool:
        """Whether a wrong PIN was sent since the last right one (CKF_USER_PIN_COUNT_LOW)."""
        shown = subprocess.run(
            [sys.executable, "-c", _FLAGS, self.made.uri],
            env={**os.environ, **self.made.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return bool(int(shown.stdout) & 0x10000)


_FLAGS = """
import sys
from wghsm.pkcs11_backend.module import load
from wghsm.pkcs11_backend.uri import TokenUri
import os
os.setgroups([]); os.setresgid(61100, 61100, 61100); os.setresuid(61100, 61100, 61100)
uri = TokenUri.parse(sys.argv[1])
module = load(uri.module_path)
module.acquire()
print(int(module.find_token(uri).flags))
"""


def provision(made: Made, **order: object) -> dict[str, list[str]]:
    return in_token(made, _PROVISION, **order)


def in_token(made: Made, program: str, **order: object) -> dict[str, list[str]]:
    """Run a program that reads `order`, with `uri` and `uid`, from its input and writes its answer, both in JSON."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps({"uri": made.uri, "uid": UID, **order}),
        env={**os.environ, **made.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, list[str]] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def gateway_token() -> Iterator[GatewayToken]:
    psk = os.urandom(32)
    with softhsm_token(uid=UID) as made:
        answer = provision(made, new=True, label=LABEL_PSK, psk=psk.hex())
        yield GatewayToken(made, bytes.fromhex(str(answer["public"])), psk)


@contextlib.contextmanager
def state_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "gw"


def rest(peer: SoftwarePeer) -> None:
    """Wait until the custodian takes another initiation of the peer: its flood guard looks at the clock."""
    while (wait := peer.last_initiation + INITIATION_FLOOD_GUARD - boottime()) > 0:
        time.sleep(wait / 1e9)


class Custodian:
    """One custodian process; the test is everybody else."""

    def __init__(
        self,
        token: GatewayToken,
        state: Path,
        *,
        incarnation: int = 1,
        peers: Sequence[SoftwarePeer] = (),
        cache: bool = True,
        sessions: int = 2,
        changes: Mapping[str, object] | None = None,
        program: Sequence[str] = ("-m", "wghsm.custodian"),
    ) -> None:
        self.waiting: dict[ChannelKind, deque[m.Message]] = {kind: deque() for kind in ChannelKind}
        self.channels: dict[ChannelKind, Channel] = {}
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        mine, theirs = socket_pair()
        self.process = subprocess.Popen(
            [sys.executable, "-I", *program, "--channel", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={"PATH": os.environ["PATH"], **token.made.environment},
            stdin=subprocess.DEVNULL,
            stderr=self.log,
        )
        theirs.close()
        self.home = ChannelKind.SUPERVISOR_CUSTODIAN
        self.channels[self.home] = Channel(mine, self.home, Role.SUPERVISOR)
        self._stats_fd = create_stats()
        self.stats = StatsFile(self._stats_fd, Role.SUPERVISOR)
        settings: dict[str, object] = {
            "uri": token.made.uri,
            "key": "gateway",
            "psk_root": "root",
            "sessions": sessions,
            "cache_static_static": cache,
            "runtime_psks": False,
            "state_directory": str(state),
        }
        self.send(self.home, m.Start("test", incarnation, UID, UID, os.getpid(), "debug"))
        self.send(self.home, m.StatsTable(100), [self._stats_fd])
        self.send(self.home, m.TokenSettings(**{**settings, **(changes or {})}))  # type: ignore[arg-type]
        self.tell_peers(*peers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self.channels.values():
            channel.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.stats.close()
            os.close(self._stats_fd)
            self.log.close()

    def tell_peers(self, *peers: SoftwarePeer, remove: Sequence[int] = ()) -> None:
        self.send(self.home, m.CustodianPeers(1, [peer.told for peer in peers], list(remove)))

    def attach(self, *kinds: ChannelKind) -> Self:
        """Hand over a fresh pair of each kind; by default of the three that handshakes need."""
        for kind in kinds or _THREE:
            mine, theirs = socket_pair()
            self.send(self.home, m.Attach(kind, 1), [theirs.fileno()])
            theirs.close()
            if before := self.channels.get(kind):
                before.close()
            role = next(role for role in Role if role in kind.split("-") and role is not Role.CUSTODIAN)
            self.channels[kind] = Channel(mine, kind, role)
            self.waiting[kind].clear()
        return self

    def ready(self) -> Self:
        """Wait until it serves, with the three channels attached."""
        self.receive(self.home, m.Ready)
        self.attach()
        self.receive(ChannelKind.HANDSHAKE_CUSTODIAN, m.Identity)
        return self

    def send(self, kind: ChannelKind, message: m.Message, fds: Sequence[int] = ()) -> None:
        # A custodian that has ended already is found by what the test waits for.
        with contextlib.suppress(ChannelClosed):
            self.channels[kind].send(message, fds)

    def ask(self, message: m.AcceptInitiation | m.CreateInitiation | m.AcceptResponse) -> m.Message:
        """One request of the handshake process, and its answer."""
        self.send(ChannelKind.HANDSHAKE_CUSTODIAN, message)
        return self.receive(ChannelKind.HANDSHAKE_CUSTODIAN, m.Message)

    def installed(self) -> tuple[m.InstallReceive, m.InstallSend]:
        """The next keys that came to ingress and egress."""
        receive = self.receive(ChannelKind.CUSTODIAN_INGRESS, m.InstallReceive)
        send = self.receive(ChannelKind.CUSTODIAN_EGRESS, m.InstallSend)
        assert (receive.session, receive.peer, receive.created) == (send.session, send.peer, send.created)
        return receive, send

    def receive(self, kind: ChannelKind, wanted: type[_M]) -> _M:
        """The next message of a type on a channel; others before it are dropped."""
        deadline = time.monotonic() + PATIENCE
        waiting = self.waiting[kind]
        while True:
            while waiting:
                message = waiting.popleft()
                if isinstance(message, wanted):
                    return message
            left = deadline - time.monotonic()
            assert left > 0, f"no {wanted.__name__} came; the log:\n{self.log_text()}"
            self._read(kind, left)

    def _read(self, kind: ChannelKind, timeout: float) -> None:
        channel = self.channels[kind]
        channel.flush()
        if not select.select([channel], [], [], timeout)[0]:
            return
        try:
            self.waiting[kind].extend(message for message, _ in channel.messages(1000))
        except ChannelClosed:
            # What it said before it went has been taken in.
            if self.waiting[kind]:
                return
            raise AssertionError(f"the custodian ended; its log:\n{self.log_text()}") from None

    def end(self) -> int:
        """Wait until it ends by itself; gives the exit code."""
        return self.process.wait(PATIENCE)

    def fault(self) -> m.Fault:
        """The one line with which it ends."""
        fault = self.receive(self.home, m.Fault)
        assert self.end() == fault.exit_code
        assert "\n" not in fault.text
        return fault

    def log_text(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def counters(self) -> dict[Counter, int]:
        return self.stats.counters(Role.CUSTODIAN)


_THREE = (ChannelKind.HANDSHAKE_CUSTODIAN, ChannelKind.CUSTODIAN_EGRESS, ChannelKind.CUSTODIAN_INGRESS)
