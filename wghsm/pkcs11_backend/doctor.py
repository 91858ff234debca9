"""The doctor: everything that a gateway needs of a token, tried on the token itself, a line each.

    module -> token -> flags -> mechanisms -> login -> key, dialect, attributes, value -> agreement -> low-order points
    -> PSKs -> sessions -> latency;   then, over several tokens: the same keys and the same PSK root?

Called by `wghsm token doctor` (docs/token-doctor.md). Each token is examined in a process of its own; unless asked
to, it writes nothing, and a PIN is sent at most once. `essential_checks` is what the custodian does at its start.
"""

import base64
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend._doctor_apart import Ended, Tell, examine_apart
from wghsm.pkcs11_backend._doctor_essential import essential_checks
from wghsm.pkcs11_backend._doctor_gcm import SealedPsk
from wghsm.pkcs11_backend._doctor_key import examine_key, only_key
from wghsm.pkcs11_backend._doctor_psk import examine_psks
from wghsm.pkcs11_backend._doctor_report import (
    Finding,
    Found,
    Level,
    Step,
    TokenReport,
    compare,
    exit_code,
    failed,
    green,
    red,
    verdict,
    yellow,
)
from wghsm.pkcs11_backend._doctor_sessions import examine_sessions
from wghsm.pkcs11_backend._doctor_token import examine_flags, examine_mechanisms, may_log_in
from wghsm.pkcs11_backend.audit_key import find_audit_key
from wghsm.pkcs11_backend.errors import PinRefused, TokenError
from wghsm.pkcs11_backend.module import Module, load
from wghsm.pkcs11_backend.pool import TokenPool
from wghsm.pkcs11_backend.uri import TokenUri

if TYPE_CHECKING:
    from pkcs11.types import Token

    from wghsm.pkcs11_backend._objects import PrivateKey

__all__ = [
    "Finding",
    "Level",
    "Order",
    "SealedPsk",
    "TokenReport",
    "compare",
    "essential_checks",
    "examine",
    "exit_code",
    "failed",
    "verdict",
]


@dataclass(frozen=True)
class Order:
    """What to examine. `key`, `psk_root` and `wrap_key` are labels, None where none is known.

    `audit_key` is the label of the key that signs checkpoints of the audit log.

    `previous_key` is the label of a key that is served beside `key`, `wrap_sample` what the wrapping key of a twin has
    sealed (the fact of that name, of its report).

    `sessions` is how many worker sessions are wanted; `strict` says that a gateway file asks for them. `kinds` are the
    PSK kinds that the gateway's peers have (derived, wrapped, object), `sealed` the wrapped ones, `objects` the labels
    of the last. With `at_final_try` the PIN is sent although one more wrong one locks the token; with `write` the login
    may write, and one PSK object is put into the token and destroyed again.
    """

    uri: TokenUri
    key: str | None = None
    psk_root: str | None = None
    wrap_key: str | None = None
    sessions: int = 4
    strict: bool = False
    kinds: frozenset[str] = field(default_factory=frozenset)
    objects: tuple[str, ...] = ()
    at_final_try: bool = False
    write: bool = False
    wrap_sample: bytes | None = None
    previous_key: str | None = None
    audit_key: str | None = None
    sealed: tuple[SealedPsk, ...] = ()


def examine(
    order: Order,
    pin: bytearray | None,
    owner: tuple[int, int] | None,
    found: Callable[[Finding], None],
    patience: float = 60.0,
) -> TokenReport:
    """Examine one token as the uid and gid `owner` (None: as we are), and tell each finding as it comes.

    Without a PIN the token asks for it at its pinpad. No answer for `patience` seconds ends it. `pin` stays the
    caller's to wipe.
    """
    report = TokenReport(str(order.uri))
    step = "module"

    def take(finding: Finding) -> None:
        report.findings.append(finding)
        found(finding)

    try:
        for record in examine_apart(lambda tell: _send(_steps(order, pin), tell), owner, patience):
            step = str(record.get("step", step))
            report.facts.update(record.get("facts", {}))
            if (told := record.get("finding")) is not None:
                level, code = Level(told["level"]), ExitCode(record["exit_code"])
                take(Finding(str(told["check"]), level, str(told["text"]), str(told["remedy"]), code))
    except Ended as ended:
        text = f"the module {order.uri.module_path} {ended} at the check {step!r}"
        take(red(step, text, "look into the module's own log; mend or update it, or use another token"))
    return report


def _send(steps: Iterator[Found], tell: Tell) -> None:
    """The child's part: each thing found as a record of JSON."""
    for found in steps:
        match found:
            case Finding():
                tell({"finding": found.as_json(), "exit_code": int(found.exit_code)})
            case Step(name, wait):
                tell({"step": name, "wait": wait})
            case _:
                tell({"facts": found})


def _steps(order: Order, pin: bytearray | None) -> Iterator[Found]:
    yield Step("module")
    try:
        module = load(order.uri)
        module.acquire()
    except TokenError as error:
        yield failed("module", error)
        return
    path = order.uri.module_path or ""
    yield {"module": {"path": path, "description": module.description}}
    yield green("module", f"{Path(path).name}: {module.description}")
    try:
        token = yield from _token(module, order)
    finally:
        module.release()
    if token is None or not may_log_in(token, at_final_try=order.at_final_try):
        return
    yield Step("login", wait=pin is None)
    try:
        pool = TokenPool.open(order.uri, pin, 0, order.write, at_final_try=order.at_final_try)
    except TokenError as error:
        yield failed("login", error)
        if isinstance(error, PinRefused):
            yield from _after_a_refusal(module, order)
        return
    with pool:
        yield green(
            "login",
            f"logged in, read-{'write' if order.write else 'only'}" + (", at the pinpad" if pin is None else ""),
        )
        yield from _logged_in(pool, order)


def _token(module: Module, order: Order) -> Generator[Found, None, "Token | None"]:
    yield Step("token")
    try:
        token = module.find_token(order.uri)
    except TokenError as error:
        yield failed("token", error)
        return None
    about = {
        "label": token.label,
        "serial": token.serial.decode("utf-8", "replace"),
        "manufacturer": token.manufacturer_id or "",
        "model": token.model or "",
        "slot_id": int(token.slot.slot_id),
    }
    yield {"token": about}
    made = f"{about['manufacturer']} {about['model']}".strip()
    yield green("token", f"{token.label!r}, serial {about['serial']}, {made}, slot {about['slot_id']}")
    yield Step("flags")
    yield from examine_flags(token, at_final_try=order.at_final_try)
    yield Step("mechanisms")
    try:
        yield from examine_mechanisms(token)
    except TokenError as error:
        yield failed("mechanisms", error)
        return None
    return token


def _after_a_refusal(module: Module, order: Order) -> Iterator[Found]:
    """What the token says now about its PIN."""
    try:
        module.acquire()
        try:
            token = module.find_token(order.uri)
            for found in examine_flags(token, at_final_try=False):
                if not isinstance(found, Finding) or found.level is not Level.GREEN:
                    yield found
        finally:
            module.release()
    except TokenError:
        return


def _logged_in(pool: TokenPool, order: Order) -> Iterator[Found]:
    yield Step("key")
    try:
        label = order.key or only_key(pool)
    except TokenError as error:
        yield failed("key", error)
        return
    if label is None:
        text = "no key was named, and the token has not just one X25519 key"
        yield red("key", text, "name it with --key, or make one: wghsm key generate LABEL")
    else:
        yield from examine_key(pool, label)
    if order.previous_key is not None:
        yield from _previous(pool, order.previous_key)
    own = [key.public_key for key in (_usable(pool, label), _usable(pool, order.previous_key)) if key is not None]
    yield from examine_psks(
        pool, order.psk_root, order.wrap_key, order.kinds, order.objects, order.wrap_sample, order.sealed, own
    )
    if order.audit_key is not None:
        yield from _audit(pool, order.audit_key)
    yield from examine_sessions(pool, _usable(pool, label), order.sessions, strict=order.strict)


def _previous(pool: TokenPool, label: str) -> Iterator[Found]:
    yield Step("previous-key")
    try:
        public = base64.b64encode(pool.find_key(label).public_key).decode()
    except TokenError as error:
        yield failed("previous-key", error)
        return
    yield {"previous_public_key": public}
    yield green("previous-key", f"{label!r} derives its public key {public}")


def _audit(pool: TokenPool, label: str) -> Iterator[Found]:
    yield Step("audit-key")
    try:
        key = find_audit_key(pool, label)
    except TokenError as error:
        text, _, remedy = str(error).rpartition("; ")
        yield yellow("audit-key", f"{text}: records stay unsealed", remedy)
        return
    yield green("audit-key", f"{label!r} signs ({key.algorithm}), and its signature verifies in software")


def _usable(pool: TokenPool, label: str | None) -> "PrivateKey | None":
    """The key if it derives; why it does not has been told."""
    try:
        return None if label is None else pool.find_key(label)
    except TokenError:
        return None
