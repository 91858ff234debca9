"""The custodian: the only process that uses the gateway's private key and pre-shared keys (SEAMS.md).

    rules      who may have what, how often            pure
    core       the three handshake operations          pure; asks `custody` for the key, returns `effects`
    health     is the token there                      pure
    keeper     does what health decides
    vault      the token, or several with one key, by wghsm.pkcs11_backend
    workers    threads that wait for the token
    state      timestamps on disk;   latch  a refused PIN on disk
    psks       PSKs set at run time
    service    channels and loop around all that;   process  its beginning

Its program is `python -m wghsm.custodian`; a test program may call `main` with other `Times` and `TokenTimes`.
"""

from .health import TokenTimes
from .process import main
from .rules import Times

__all__ = ["Times", "TokenTimes", "main"]
