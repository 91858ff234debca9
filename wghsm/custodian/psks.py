"""PSKs that wg(8) sets, on their way into the token and out of it (`authority: runtime` only).

Called by `service` with messages of the control process. Only labels of wghsm's own making are touched: what the
operator stored under another name cannot be overwritten or removed this way.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from wghsm.ipc import messages as m
from wghsm.noise.constants import SYMMETRIC_KEY_LEN
from wghsm.pkcs11_backend import TokenError
from wghsm.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from .effects import Effect, Job, Landing
    from .vault import TokenVault

__all__ = ["LABEL_PREFIX", "delete_job", "put_job", "refusal"]

LABEL_PREFIX = "wghsm-psk-"
_LONGEST_LABEL = 128


def refusal(message: m.PutPsk | m.DeletePsk, *, allowed: bool) -> m.PskResult | None:
    """Why the request is refused before the token is asked, or None. A refused PSK is wiped."""
    problem: tuple[int, str] | None = None
    if not allowed:
        problem = errno.EPERM, "the token is opened for reading; PSKs at run time need authority: runtime"
    elif not message.label.startswith(LABEL_PREFIX) or len(message.label) > _LONGEST_LABEL:
        problem = errno.EPERM, f"only labels that begin with {LABEL_PREFIX} may be written at run time"
    elif isinstance(message, m.PutPsk) and len(message.psk) != SYMMETRIC_KEY_LEN:
        problem = errno.EINVAL, f"a PSK has {SYMMETRIC_KEY_LEN} bytes"
    if problem is None:
        return None
    if isinstance(message, m.PutPsk):
        wipe(message.psk)
    return m.PskResult(message.request, *problem)


def put_job(vault: TokenVault, message: m.PutPsk, answer: Callable[[m.PskResult], None]) -> Job:
    """A job that stores the PSK and answers; the PSK is wiped in the message now, and in the job afterwards."""
    psk = bytearray(message.psk)
    wipe(message.psk)
    request, label = message.request, message.label

    def put() -> m.PskResult:
        vault.put_psk(label, psk)
        return m.PskResult(request, 0)

    return _job(request, put, answer)


def delete_job(vault: TokenVault, message: m.DeletePsk, answer: Callable[[m.PskResult], None]) -> Job:
    """A job that removes the PSK and answers."""
    request, label = message.request, message.label

    def delete() -> m.PskResult:
        if vault.delete_psk(label):
            return m.PskResult(request, 0)
        return m.PskResult(request, errno.ENOENT, f"the token has no PSK under {label}")

    return _job(request, delete, answer)


def _job(request: int, work: Callable[[], m.PskResult], answer: Callable[[m.PskResult], None]) -> Job:
    def job() -> Landing:
        try:
            result = work()
        except TokenError as error:
            result = m.PskResult(request, errno.EIO, str(error))

        def land(_now: int) -> list[Effect]:
            answer(result)
            return []

        return land

    return job
