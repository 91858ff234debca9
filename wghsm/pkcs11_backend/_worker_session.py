"""What a thread may ask with a session that `pool` has lent to it: derives, PSKs, signatures."""

from wghsm.pkcs11_backend import _psk
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._objects import PrivateKey, RootSecret, StoredPsk
from wghsm.pkcs11_backend.errors import TokenFault

__all__ = ["WorkerSession"]


class WorkerSession:
    """One session of the pool, lent to one thread by `TokenPool.session`."""

    def __init__(self) -> None:
        self.calls: Calls | None = None
        """The session's, None while the token is down (the pool only)."""
        self.begins = False
        """Whether an operation of several calls was begun since it was lent (the pool only)."""

    def derive(self, key: PrivateKey, public: bytes) -> bytearray:
        """Return X25519(key, public) as 32 bytes; `public` is 32 raw bytes. The caller wipes the result.

        Raises PointRefused (the peer's fault: low order, or an all-zero result) and TokenFault.
        """
        return self._ready().derive(key.handle, public, key.dialect, key.public_key)

    def derived_psk(self, root: RootSecret, gateway_public: bytes, peer_public: bytes, epoch: int) -> bytearray:
        """Return the derived PSK of a peer, 32 bytes, which the caller wipes. Raises TokenFault, ValueError."""
        self.begins = True
        return self._ready().hmac_sha256(root.handle, _psk.psk_message(gateway_public, peer_public, epoch))

    def sign(self, mechanism: int, key: int, data: bytes) -> bytes:
        """Sign `data` with the private key of handle `key` (this room only). Raises TokenFault."""
        self.begins = True
        return self._ready().sign(mechanism, key, data)

    def read_psk(self, psk: StoredPsk) -> bytearray:
        """Return the 32 bytes of a PSK object, which the caller wipes. Raises KeyUnfit, TokenFault."""
        return self._ready().read_secret(psk.handle)

    @property
    def handle(self) -> int:
        """The CK_SESSION_HANDLE (this room only). Raises TokenFault."""
        self.begins = True
        return self._ready().session

    def _ready(self) -> Calls:
        if self.calls is None:
            raise TokenFault(0x0B3, "using a session of a token that is down")
        return self.calls
