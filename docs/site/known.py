"""What messages.py says beside what the code says itself: meaning and remedy of counters, exit codes and audit records.

The page cannot be made while one of them has no line here, so nothing new goes without a word.
"""

from wghsm.audit.record import Kind
from wghsm.exits import ExitCode
from wghsm.ipc import Counter

__all__ = ["COUNTERS", "EXITS", "RECORDS"]

_NOTHING = "nothing"

COUNTERS: dict[Counter, tuple[str, str]] = {
    Counter.MALFORMED: ("what came is no WireGuard message, or has the wrong length", _NOTHING),
    Counter.UNKNOWN_TYPE: ("a datagram of a type that WireGuard does not have", _NOTHING),
    Counter.UNKNOWN_INDEX: (
        "data for no session that is here: of one that has ended, or from a stranger",
        "nothing, unless it grows fast: a peer with a recorded or long dead session",
    ),
    Counter.EXPIRED_SESSION: ("data of a session older than three minutes", "nothing; a slow path, or a peer's clock"),
    Counter.AUTHENTICATION_FAILED: (
        "data that does not open: changed on the way, or forged",
        "nothing; where it grows with the traffic of one peer, look at what changes its packets",
    ),
    Counter.REPLAYED: ("data that was here before, or came more than 8,000 packets late", _NOTHING),
    Counter.INNER_MALFORMED: ("what was inside, or what the TUN gave, is no IP packet", "look at the peer's program"),
    Counter.SOURCE_NOT_ALLOWED: (
        "a peer sent with an address that is not among its allowed IPs",
        "correct `allowed_ips` here, or the peer's own address",
    ),
    Counter.HANDSHAKE_QUEUE_FULL: (
        "handshake messages that ingress does not pass on: there are more than anybody needs",
        "a flood; peers with a session go on ([architecture.md](architecture.md#a-flood))",
    ),
    Counter.TUN_WRITE_FAILED: ("the kernel did not take a packet for the interface", "see that the link is up"),
    Counter.NO_PEER: (
        "a packet for an address that is in no peer's allowed IPs; its sender hears ICMP unreachable",
        "correct `allowed_ips`, or the route that leads here",
    ),
    Counter.NO_ENDPOINT: (
        "a packet for a peer whose endpoint nobody knows yet",
        "the peer must call first, or give it an `endpoint`",
    ),
    Counter.STAGED_OVERFLOW: (
        "packets that waited for a handshake, and more came than may wait (128 a peer)",
        "find out why the handshake does not come: the peer, the token",
    ),
    Counter.STAGED_PURGED: ("packets that waited for a handshake that was given up", "the same"),
    Counter.SEND_FAILED: ("the kernel did not take a datagram", "look at routes and firewall for the peer's endpoint"),
    Counter.KEY_REPEATED: ("a session key that was there before; none is used twice", "nothing; if it grows, a defect"),
    Counter.KEY_REFUSED: ("a session key for a peer that has gone meanwhile, or too late", "nothing, after a change"),
    Counter.HANDED_OVER: (
        "packets that another worker's queue got, and that were passed to the owner",
        "much of it: see [scaling.md](scaling.md) for the right to steer in the kernel",
    ),
    Counter.OTHER_WORKER_BUSY: ("packets that the owner had no room for", "the same"),
    Counter.BAD_MAC1: ("handshake messages for another key than the gateway's", "nothing; a peer with an old key"),
    Counter.BAD_MAC2: ("under load, a message without a valid cookie; a cookie was sent", _NOTHING),
    Counter.RATE_LIMITED: ("under load, more handshakes from one address than it may have", _NOTHING),
    Counter.COOKIE_SENT: ("cookie replies, under load", "if it goes on: look at the token's latency in status"),
    Counter.COOKIE_RECEIVED: ("cookie replies of a peer that is under load", _NOTHING),
    Counter.COOKIE_REFUSED: ("cookie replies that do not open", _NOTHING),
    Counter.UNKNOWN_HANDSHAKE: ("responses and cookies to no handshake that is under way", _NOTHING),
    Counter.NO_CUSTODIAN: ("handshakes while the custodian is away", "see `token` and `custodian` in status"),
    Counter.NO_WORKER: ("handshakes while the peer's egress or ingress is away", "see these processes in status"),
    Counter.CUSTODIAN_REFUSED: ("requests that the custodian refused; its own counters say why", "see the custodian's"),
    Counter.CUSTODIAN_BUSY: (
        "handshakes that found too many others waiting for the token",
        "more `token.sessions`, or a faster token; `wghsm token doctor` measures it",
    ),
    Counter.INITIATION_SENT: ("initiations sent", _NOTHING),
    Counter.INITIATION_RECEIVED: ("initiations that were proven", _NOTHING),
    Counter.RESPONSE_SENT: ("responses sent", _NOTHING),
    Counter.RESPONSE_RECEIVED: ("responses that were proven", _NOTHING),
    Counter.HANDSHAKE_COMPLETE: ("handshakes that made a session", _NOTHING),
    Counter.HANDSHAKE_GIVEN_UP: (
        "a peer did not answer for 90 seconds of attempts",
        "is it there, is its endpoint right, does it have the gateway's key and its PSK?",
    ),
    Counter.LOW_ORDER_POINT: ("a public key with which no secret can be shared", "nothing; no accident makes one"),
    Counter.BAD_STATIC: ("an initiation that is not by who it says", "nothing; a peer with a damaged configuration"),
    Counter.UNKNOWN_PEER: (
        "a good handshake by a key that is no peer: never was, disabled, expired or removed",
        "`wghsm peer list`",
    ),
    Counter.BAD_TIMESTAMP: ("an initiation whose timestamp does not open", _NOTHING),
    Counter.OLD_TIMESTAMP: (
        "an initiation that is not newer than the newest of its peer: a replay, or a clock that went back",
        "`wghsm peer reset-timestamp` ([clients.md](clients.md#a-client-that-was-restored)), the clock first",
    ),
    Counter.FLOOD: ("a peer calls more often than each 20 ms", "look at the peer's program"),
    Counter.PEER_BUSY: ("a peer calls while its last call is at the token", _NOTHING),
    Counter.TOO_SOON: ("the gateway was to call a peer again within five seconds", _NOTHING),
    Counter.UNKNOWN_HANDLE: ("a response to a call that was replaced or has expired", _NOTHING),
    Counter.BAD_RESPONSE: (
        "a response that does not open: another PSK, or forged",
        "hand the peer's PSK out again ([psk.md](psk.md))",
    ),
    Counter.TOKEN_FAULT: (
        "handshakes refused because the token failed or is away",
        "see `token` in status, the log, and [fault-matrix.md](fault-matrix.md)",
    ),
    Counter.DERIVE: ("uses of the private key in the token", _NOTHING),
    Counter.PSK_USE: ("pre-shared keys that the token made or opened", _NOTHING),
    Counter.TOKEN_CHECKED: ("checks of the token with data known to be good", _NOTHING),
    Counter.TOKEN_REPAIRED: ("repairs of the token", "often: look at the module's log and the way to the token"),
    Counter.TOKEN_AWAY: ("times that the token went away", "the log says when and why"),
    Counter.TOKEN_SWITCHED: ("times that another token took over, or the first came back", "mend the first one"),
    Counter.PSK_OUTDATED: (
        "a peer that has proven a newer PSK would go on with an older one",
        "the gateway file was turned back: write the newer epoch again",
    ),
    Counter.UNKNOWN_IDENTITY: ("a handshake with a key of the gateway that was retired just now", _NOTHING),
    Counter.AUDIT_STOPPED: (
        "handshakes refused because records are being lost, with `audit.on_failure: stop-new-handshakes`",
        "see `audit log` in status ([audit-operation.md](audit-operation.md#when-it-fails))",
    ),
    Counter.AUDIT_RECORDED: ("records written", _NOTHING),
    Counter.AUDIT_UNWRITTEN: ("events that could not be written", "room on the disk, or the rights of the folder"),
    Counter.AUDIT_JOURNALD_LOST: ("records that journald did not get", "is journald there? its limits"),
    Counter.AUDIT_SYSLOG_LOST: ("records that the syslog server did not get", "server, certificate, network"),
}
"""Of each counter: what it counts, and what an operator does about it."""

EXITS: dict[ExitCode, str] = {
    ExitCode.OK: "",
    ExitCode.FAILURE: "do what the line says; where it says nothing to do, the gateway's log has more",
    ExitCode.BAD_CONFIG: "correct the gateway file (`wghsm check FILE`) or the command; no restart helps before",
    ExitCode.PIN_REFUSED: "correct the PIN where `pin-source` says. It was sent once, and the gateway does not send it "
    "again until it has changed. A locked PIN is set anew by the token's security officer",
    ExitCode.TOKEN_UNUSABLE: "`wghsm token doctor -c FILE`, and mend what is red",
    ExitCode.ALREADY_RUNNING: "`wghsm status`; end the other one with `wghsm down`, or give this one another name",
    ExitCode.NOT_RUNNING: "`wghsm up FILE`, or look in the log why it ended",
    ExitCode.NO_PRIVILEGE: "run it as root",
    ExitCode.SYSTEM: "the line names what: free the port or name, load the module, install the package",
    ExitCode.WOULD_CHANGE: "`wghsm reload` brings it into force",
    ExitCode.NEEDS_RESTART: "restart the gateway, or take that change back",
    ExitCode.ROTATION_DUE: "rotate what is named: [key-rotation.md](key-rotation.md), [psk.md](psk.md#rotation)",
    ExitCode.DIFFERS: "find out who changed the token; the report names each difference",
    ExitCode.UNPROVED: "give `--key`, or wait for the first checkpoint",
    ExitCode.PROTOCOL: "the process is started again; report it with the log",
    ExitCode.INTERRUPTED: "",
}
"""What to do after each exit code."""

RECORDS: dict[Kind, str] = {
    "start": "after it, what the one before says: without a `stop` the machine or the auditor died",
    "stop": "with `failed`: the exit code in its `detail`",
    "key.use": _NOTHING,
    "pin.login": "`refused` that you know nothing of: change the PIN, and find out who has tried",
    "config.change": "compare with what was agreed; `who` is who asked",
    "peer.change": "the same",
    "psk.export": "the same",
    "key.change": "the same",
    "control.refused": "who tried to set a key at run time, or without the right to?",
    "fault": "token or process: see status; a `recovery` should follow",
    "recovery": "often: look for the cause of the faults",
    "aggregate": "what strangers cause, by the counters below",
    "gap": "records are missing: room on the disk, and the time for which nothing is proved",
    "retention": _NOTHING,
    "checkpoint": "none for minutes: the token is away, or the audit key",
}
"""What to do about each kind of audit record."""
