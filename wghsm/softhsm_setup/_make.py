"""The child that makes one token as the store's owner: `python -m wghsm.softhsm_setup._make`, for `_store` only.

Standard input: a line of JSON (module, label, uid, gid), a line with the SO PIN, a line with the PIN.

    import everything -> drop to the owner -> check the way to the store -> load the module -> C_InitToken
"""

import json
import os
import sys
from pathlib import Path

from wghsm.pkcs11_backend import TokenError, TokenUri
from wghsm.pkcs11_backend.tokens import init_token
from wghsm.wipe import wipe


def main() -> int:
    """Make the token; print one line to standard error and return 1 when it fails."""
    order = json.loads(sys.stdin.buffer.readline())
    so_pin = bytearray(sys.stdin.buffer.readline().removesuffix(b"\n"))
    pin = bytearray(sys.stdin.buffer.readline().removesuffix(b"\n"))
    uid, gid = int(order["uid"]), int(order["gid"])
    os.umask(0o077)
    if uid != os.geteuid():
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    try:
        _check_way(Path(os.environ["SOFTHSM2_CONF"]), uid)
        init_token(TokenUri(module_path=order["module"], token=order["label"]), so_pin, pin)
    except TokenError as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    finally:
        wipe(so_pin)
        wipe(pin)
    return 0


def _check_way(conf: Path, uid: int) -> None:
    for folder in reversed(conf.parents):
        if not os.access(folder, os.X_OK):
            raise TokenError(f"uid {uid} cannot pass through {folder}; chmod o+x {folder}, or choose another folder")
    if not os.access(conf, os.R_OK):
        raise TokenError(f"uid {uid} cannot read {conf}; chmod 644 {conf}")


if __name__ == "__main__":
    sys.exit(main())
