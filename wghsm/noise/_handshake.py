"""What initiator and responder share: the order of methods as a table, work on copies, and wiping."""

from enum import Enum, auto
from typing import ClassVar, Self

from wghsm.noise._transcript import Transcript
from wghsm.noise.constants import PUBLIC_KEY_LEN
from wghsm.noise.results import OutOfOrderError, Reason, Rejected

__all__ = ["Handshake", "Stage"]


class Stage(Enum):
    """How far a handshake has come."""

    NEW = auto()
    STATIC_READ = auto()
    """Responder: the initiator's static key is known, not yet proven."""
    CONSUMED_INITIATION = auto()
    CREATED_RESPONSE = auto()
    CREATED_INITIATION = auto()
    ZEROED = auto()


class Handshake:
    """Base of both roles: `ORDER` gives for each method the only stage that allows it and the one it leads to."""

    ORDER: ClassVar[dict[str, tuple[Stage, Stage]]]

    def __init__(self, responder_public: bytes) -> None:
        if len(responder_public) != PUBLIC_KEY_LEN:
            raise ValueError(f"a public key has {PUBLIC_KEY_LEN} bytes, not {len(responder_public)}")
        self._stage = Stage.NEW
        self._transcript = Transcript()
        self._transcript.mix_hash(responder_public)

    def wipe(self) -> None:
        """Destroy everything; no other method may be called afterwards. Harmless when repeated."""
        self._stage = Stage.ZEROED
        self._transcript.wipe()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def _require(self, method: str) -> None:
        needed = self.ORDER[method][0]
        if self._stage is not needed:
            raise OutOfOrderError(f"{type(self).__name__}.{method} at {self._stage.name}, it needs {needed.name}")

    def _working_copy(self) -> Transcript:
        """A copy of the transcript for a `with`, wiped at its end; `_commit` makes it the transcript."""
        return self._transcript.copy()

    def _refuse(self, method: str, reason: Reason) -> Rejected:
        """Refuse for `reason`, unless that is only because the handshake went elsewhere while a token was asked."""
        return Rejected(reason if self._stage is self.ORDER[method][0] else Reason.SUPERSEDED)

    def _commit(self, method: str, work: Transcript) -> Rejected | None:
        """Take `work` over and advance, unless the handshake went elsewhere while a token was asked."""
        needed, following = self.ORDER[method]
        if self._stage is not needed:
            return Rejected(Reason.SUPERSEDED)
        self._transcript.swap(work)
        self._stage = following
        return None
