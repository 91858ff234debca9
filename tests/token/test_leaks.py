"""What a derive leaves behind in the process: nothing, after a thousand of them (PKCS11.md section 2; every module)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.network.support.memory import scan_memory
from tests.token.conftest import TokenUnderTest
from wghsm.pkcs11_backend import PrivateKey, TokenPool
from wghsm.pkcs11_backend.provision import derive_root

_DERIVES = 1000
_KEPT = 3
# Searching for each of a thousand takes a minute: the first, the last, and some between are looked for.
_SOUGHT = (*range(20), *range(20, 960, 40), *range(960, _DERIVES))

_WORK = """
import json, sys, threading
from wghsm.pkcs11_backend import TokenPool
from wghsm.wipe import wipe
order = json.loads(sys.stdin.readline())
publics = [bytes.fromhex(public) for public in order["publics"]]
pin = bytearray.fromhex(order["pin"])
pool = TokenPool.open(order["uri"], pin, 2)
key = pool.find_key(order["key"])
root = pool.find_root(order["root"]) if order["root"] else None
kept = []
def work(publics):
    for public in publics:
        with pool.session() as session:
            secret = session.derive(key, public)
            if public in order["keep"]:
                kept.append(secret)
            else:
                wipe(secret)
            if root is not None:
                wipe(session.derived_psk(root, key.public_key, public, 1))
order["keep"] = {bytes.fromhex(public) for public in order["keep"]}
threads = [threading.Thread(target=work, args=(publics[n::2],)) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("done", flush=True)
sys.stdin.readline()
"""


@contextmanager
def _derived(token: TokenUnderTest, key: PrivateKey, root: str, publics: list[bytes]) -> Iterator[int]:
    """A process that has derived with every public key, and kept the secrets of the first few; its pid."""
    order = {
        "uri": token.uri,
        "pin": token.pin.hex(),
        "key": key.label,
        "root": root,
        "publics": [public.hex() for public in publics],
        "keep": [public.hex() for public in publics[:_KEPT]],
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(order) + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        yield child.pid
    finally:
        child.communicate("\n", timeout=60)


def test_no_shared_secret_stays_in_memory(token: TokenUnderTest, label: str) -> None:
    peers = [X25519PrivateKey.generate() for _ in range(_DERIVES)]
    publics = [peer.public_key().public_bytes_raw() for peer in peers]
    secrets = {}
    root = ""
    with TokenPool.open(token.uri, bytearray(token.pin), 1, read_write=True) as pool:
        key = token.key(pool, label)
        if "roots" not in token.lacks:
            root = derive_root(pool, label + "r").label
            known = pool.find_root(root)
            with pool.session() as session:
                for n in _SOUGHT:
                    secrets[f"psk {n}"] = bytes(session.derived_psk(known, key.public_key, publics[n], 1))
    ours = X25519PublicKey.from_public_bytes(key.public_key)
    secrets |= {f"shared {n}": peers[n].exchange(ours) for n in _SOUGHT}
    with _derived(token, key, root, publics) as pid:
        found = scan_memory(pid, secrets, encoded=False).names()
    # The scan finds what is there: those that the child was told to keep.
    assert found == {f"shared {n}" for n in range(_KEPT)}
