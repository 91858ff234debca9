"""The token by itself: `_bare_token.py LIBRARY URI SESSIONS UID`, run as the store's owner by token_rate.py.

    standard output: {"public_key": hex}; then an answer for each order
    standard input:  {"sessions": N, "seconds": S}    N threads with a session each derive and do nothing else

A derive is the three C calls that the custodian makes: C_DeriveKey, C_GetAttributeValue, C_DestroyObject. LIBRARY is
`_bare.c`, compiled: while a sample lasts, no thread of this process needs the interpreter.
"""

import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable

from wghsm.noise.curve import public_key
from wghsm.pkcs11_backend import PrivateKey, TokenPool, TokenUri, open_pin
from wghsm.pkcs11_backend._calls import Packed
from wghsm.pkcs11_backend._cryptoki import Ecdh1Params, Mechanism
from wghsm.wipe import wipe

_POINTS = 64
_CKD_NULL = 1


def main() -> None:
    """Log in as the owner, then answer orders until the input ends."""
    library, uri, sessions, uid = sys.argv[1], TokenUri.parse(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    derive_until = ctypes.CDLL(library).derive_until
    derive_until.restype = ctypes.c_ulong
    with open_pin(uri.pin_source) as source:
        pin = source.read()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    points = b"".join(public_key(os.urandom(32)) for _ in range(_POINTS))
    with TokenPool.open(uri, pin, sessions) as pool:
        wipe(pin)
        key = pool.find_key("gateway")
        _say({"public_key": key.public_key.hex()})
        for line in sys.stdin:
            order = json.loads(line)
            _say(_measure(derive_until, pool, key, points, int(order["sessions"]), float(order["seconds"])))


def _measure(
    derive_until: Callable[..., int], pool: TokenPool, key: PrivateKey, points: bytes, sessions: int, seconds: float
) -> dict[str, float]:
    counts = (ctypes.c_ulong * sessions)()
    end = ctypes.c_int(0)
    begin = threading.Barrier(sessions + 1)
    faults: list[int] = []
    template = Packed(key.dialect.derived)

    def work(place: int) -> None:
        point = (ctypes.c_ubyte * 32)()
        at = ctypes.addressof(point)
        params = Ecdh1Params(kdf=_CKD_NULL, shared_length=0, shared=None, public_length=32, public=at)
        mechanism = Mechanism(
            mechanism=key.dialect.derive, parameter=ctypes.addressof(params), length=ctypes.sizeof(params)
        )
        with pool.session() as session:
            numbers = map(ctypes.c_ulong, (session.handle, key.handle))
            begin.wait()
            faults.append(
                derive_until(
                    ctypes.byref(end),
                    ctypes.byref(counts, place * ctypes.sizeof(ctypes.c_ulong)),
                    *map(ctypes.c_void_p, pool.functions.derive_addresses),
                    *numbers,
                    ctypes.byref(mechanism),
                    ctypes.c_void_p(template.address),
                    ctypes.c_ulong(template.count),
                    point,
                    points,
                    ctypes.c_ulong(_POINTS),
                )
            )

    threads = [threading.Thread(target=work, args=(place,)) for place in range(sessions)]
    for thread in threads:
        thread.start()
    begin.wait()
    started, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    done, took, cpu = sum(counts), time.monotonic() - started, time.process_time() - used
    end.value = 1
    for thread in threads:
        thread.join()
    if any(faults):
        raise RuntimeError(f"a derive failed: {faults}")
    return {"derives": done, "seconds": took, "cpu": cpu}


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
