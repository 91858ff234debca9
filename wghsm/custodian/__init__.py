"""The custodian: the only process that uses the gateway's private key and pre-shared keys (SEAMS.md).

    rules      who may have what, how often            pure
    identities which of our keys is used with whom     pure
    epochs     which PSKs are tried with whom          pure
    core       the three handshake operations          pure; asks `custody` for keys, returns `effects`
               its halves: `accepting`, `initiating`; what they share: `common`, `attempts`
    health     is the token there                      pure
    keeper     does what health decides
    vault      the token, or several with the same keys, by wghsm.pkcs11_backend; `opened` is the one in use
    workers    threads that wait for the token
    state      what must not be forgotten, on disk;   latch  a refused PIN on disk
    psks       PSKs set at run time
    auditing   what the auditor is told, and the checkpoints that are signed for it
    service    channels and loop around all that;   process  its beginning

Its program is `python -m wghsm.custodian`; a test program may call `main` with other `Times` and `TokenTimes`.
"""

from .health import TokenTimes
from .process import main
from .rules import Times

__all__ = ["Times", "TokenTimes", "main"]
