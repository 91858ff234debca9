"""The token by itself: `_bare_token.py URI SESSIONS UID`, run as the store's owner by token_rate.py.

    standard output: {"public_key": hex}; then an answer for each order
    standard input:  {"sessions": N, "seconds": S}    N threads with a session each derive and do nothing else

A derive is the three C calls that the custodian makes: C_DeriveKey, C_GetAttributeValue, C_DestroyObject.
"""

import itertools
import json
import os
import sys
import threading
import time

from wghsm.noise.curve import public_key
from wghsm.pkcs11_backend import PrivateKey, TokenPool, TokenUri, open_pin
from wghsm.wipe import wipe


def main() -> None:
    """Log in as the owner, then answer orders until the input ends."""
    uri, sessions, uid = TokenUri.parse(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with open_pin(uri.pin_source) as source:
        pin = source.read()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    points = [public_key(os.urandom(32)) for _ in range(64)]
    with TokenPool.open(uri, pin, sessions) as pool:
        wipe(pin)
        key = pool.find_key("gateway")
        _say({"public_key": key.public_key.hex()})
        for line in sys.stdin:
            order = json.loads(line)
            _say(_measure(pool, key, points, int(order["sessions"]), float(order["seconds"])))


def _measure(pool: TokenPool, key: PrivateKey, points: list[bytes], sessions: int, seconds: float) -> dict[str, float]:
    counts = [0] * sessions
    begin, end = threading.Barrier(sessions + 1), threading.Event()

    def work(place: int) -> None:
        with pool.session() as session:
            begin.wait()
            for point in itertools.cycle(points):
                if end.is_set():
                    return
                wipe(session.derive(key, point))
                counts[place] += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(sessions)]
    for thread in threads:
        thread.start()
    begin.wait()
    started, used = time.monotonic(), time.process_time()
    time.sleep(seconds)
    done, took, cpu = sum(counts), time.monotonic() - started, time.process_time() - used
    end.set()
    for thread in threads:
        thread.join()
    return {"derives": done, "seconds": took, "cpu": cpu}


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
