"""What the custodian's machine asks the outside to do, in the order of the list that a call returns.

Made by `core`, carried out by `service`: what is to be remembered is on disk before any answer leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wghsm.ipc import identity_number, index_of
from wghsm.ipc import messages as m

if TYPE_CHECKING:
    from wghsm.noise import SessionKeys
    from wghsm.pkcs11_backend import TokenError

    from .epochs import Record

__all__ = [
    "Answer",
    "Derive",
    "Effect",
    "Install",
    "Job",
    "Landing",
    "Remember",
    "RememberIdentity",
    "RememberOwn",
    "RememberPsk",
    "Report",
    "ShowIdentity",
    "ShowPsk",
    "Submit",
    "Suspect",
    "Used",
]


@dataclass(frozen=True, slots=True, eq=False)
class Submit:
    """Have a worker thread run `job`, and call what it returns on the main thread."""

    job: Job


@dataclass(frozen=True, slots=True, eq=False)
class Derive:
    """Have the token derive with 32 bytes `public` and the own key with the public key `identity` (32 bytes).

    What it gave, 32 bytes to be wiped, or why not, goes to `landed` on the main thread with CLOCK_BOOTTIME in
    nanoseconds.
    """

    identity: bytes
    public: bytes
    landed: Callable[[bytearray | TokenError, int], list[Effect]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Send to the handshake process."""

    message: m.Message


@dataclass(frozen=True, slots=True, eq=False)
class Install:
    """A session is derived: its keys to ingress and egress, then `answer` to the handshake process; then wipe them.

    Without both of the two: wipe, and refuse `request`. `created` is CLOCK_BOOTTIME in nanoseconds, `identity` the own
    public key (32 bytes) that the session was made with.
    """

    request: int
    peer: int
    session: int
    local_index: int
    remote_index: int
    initiator: bool
    created: int
    identity: bytes
    keys: SessionKeys
    answer: m.Message

    def messages(self, workers: int = 1) -> tuple[m.InstallReceive, m.InstallSend]:
        """What ingress and egress of the peer's worker are told; the keys are copies, for the sender to wipe.

        Whoever chose the index may not have known whose it would be: the worker's bits in it are set here.
        """
        receive = m.InstallReceive(
            self.session,
            self.peer,
            index_of(self.local_index, self.peer, workers),
            self.initiator,
            self.created,
            bytes(self.keys.receive),
            identity_number(self.identity),
        )
        send = m.InstallSend(
            self.session, self.peer, self.remote_index, self.initiator, self.created, bytes(self.keys.send)
        )
        return receive, send


@dataclass(frozen=True, slots=True)
class Remember:
    """The greatest timestamp (12 bytes) received of a peer (its public key, 32 bytes)."""

    public_key: bytes
    timestamp: bytes


@dataclass(frozen=True, slots=True)
class RememberOwn:
    """The last own timestamp, in Unix nanoseconds."""

    unix_ns: int


@dataclass(frozen=True, slots=True)
class RememberPsk:
    """What is known of a peer's PSKs of one kind (see `epochs`)."""

    public_key: bytes
    kind: str
    record: Record


@dataclass(frozen=True, slots=True)
class RememberIdentity:
    """The own public key that a peer last made a handshake with; both keys have 32 bytes."""

    public_key: bytes
    identity: bytes


@dataclass(frozen=True, slots=True)
class ShowIdentity:
    """The same, for the peer's row of the statistics table."""

    peer: int
    identity: bytes


@dataclass(frozen=True, slots=True)
class ShowPsk:
    """The PSK of the peer's last confirmed session, as the statistics table shows it."""

    peer: int
    value: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """The token failed on data that a peer may have chosen: try it with data known to be good."""

    error: TokenError


@dataclass(frozen=True, slots=True)
class Used:
    """A handshake with a peer has used one of the gateway's keys, for the audit log.

    `operation` is accept, create or response; `peer` and `identity` are public keys of 32 bytes, `latency` the
    nanoseconds from the request to its end, `session` 0 where none was made.
    """

    operation: str
    peer: bytes
    identity: bytes
    latency: int
    session: int = 0
    psk: m.PskSource = m.PskNone()  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class Report:
    """One line that the operator should read."""

    text: str


Effect = (
    Submit
    | Derive
    | Answer
    | Install
    | Remember
    | RememberIdentity
    | RememberOwn
    | RememberPsk
    | ShowIdentity
    | ShowPsk
    | Suspect
    | Report
    | Used
)

Landing = Callable[[int], list[Effect]]
"""The main thread's half of a job, called with CLOCK_BOOTTIME in nanoseconds."""

Job = Callable[[], Landing]
"""A worker's half of a job: it may ask the token, and touches nothing but its own handshake."""
