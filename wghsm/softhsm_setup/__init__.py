"""A SoftHSM2 token for tests, demos and small sites, made by one call or one command.

    with softhsm_token(uid=61100) as made:            python -m wghsm.softhsm_setup /etc/wghsm/hsm --label gw
        made.uri, made.conf, made.pin_file                    (or: wghsm token init --softhsm /etc/wghsm/hsm --label gw)

SoftHSM keeps the raw private key and the PIN in the heap of the process that loads it: it separates processes, it
is no HSM.
"""

from wghsm.softhsm_setup._store import SoftHsmToken, find_module, make_token, softhsm_token, store_owner

__all__ = ["SoftHsmToken", "find_module", "make_token", "softhsm_token", "store_owner"]
