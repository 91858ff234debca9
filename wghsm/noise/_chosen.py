"""Which steps run: those in C where the package was built with them, else their twins in Python.

Called by `initiator` and `responder` as `_chosen.steps.NAME`, so that a test can put the other ones in their place.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wghsm.noise import _steps as steps
else:
    try:
        from wghsm.noise import _native as steps
    except ImportError:
        from wghsm.noise import _steps as steps

__all__ = ["steps"]
