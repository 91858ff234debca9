"""The doctor on sessions: how many the token gives, and how fast it derives on them."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._doctor_latency import levels, measure
from wghsm.pkcs11_backend._doctor_report import Found, Step, failed, green, red, yellow
from wghsm.pkcs11_backend._objects import PrivateKey
from wghsm.pkcs11_backend.errors import TokenError, TokenFault
from wghsm.pkcs11_backend.pool import TokenPool

__all__ = ["examine_sessions"]

# A handshake waits for two derives, and its initiator tries again after five seconds.
_SLOW_MS = 1000.0


def examine_sessions(pool: TokenPool, key: PrivateKey | None, wanted: int, *, strict: bool) -> Iterator[Found]:
    """Open up to `wanted` worker sessions beside the one that logged in, and derive on 1, 2, 4 ... of them at once."""
    yield Step("sessions")
    with ExitStack() as stack:
        calls: list[Calls] = []
        why = ""
        for place in range(wanted):
            try:
                session = pool.open_extra(f"worker session {place + 1} of {wanted}")
            except TokenFault as fault:
                why = fault.name
                break
            stack.callback(pool.functions.close_session, session)
            calls.append(Calls(pool.functions, session))
        yield {"sessions": {"wanted": wanted, "opened": len(calls)}}
        if not calls:
            text = f"no worker session is left beside the one that logs in ({why})"
            yield red("sessions", text, "end what else uses the token, or use one that allows two sessions")
            return
        if len(calls) < wanted:
            text = f"the token gives {len(calls)} of {wanted} worker sessions ({why})"
            remedy = f"write sessions: {len(calls)} under token:, or end what else uses the token"
            yield red("sessions", text, remedy) if strict else yellow("sessions", text, remedy)
        else:
            yield green("sessions", f"{wanted} worker sessions beside the one that logs in")
        if key is not None:
            yield from _latency(calls, key)


def _latency(calls: list[Calls], key: PrivateKey) -> Iterator[Found]:
    yield Step("latency")
    peer = X25519PrivateKey.generate().public_key().public_bytes_raw()

    def derive(one: Calls) -> bytearray:
        return one.derive(key.handle, peer, key.dialect)

    try:
        taken = [measure(calls[:number], derive) for number in levels(len(calls))]
    except TokenError as error:
        yield failed("latency", error)
        return
    yield {"latency": [dataclasses.asdict(one) for one in taken]}
    text = "; ".join(
        f"{one.sessions} at once: p50 {one.p50_ms:g} ms, p99 {one.p99_ms:g} ms, {one.per_second:g}/s" for one in taken
    )
    if taken[-1].p99_ms > _SLOW_MS:
        yield yellow(
            "latency", f"derives are slow: {text}", "look at the way to the token; handshakes may be tried twice"
        )
    else:
        yield green("latency", f"a derive with {text}")
