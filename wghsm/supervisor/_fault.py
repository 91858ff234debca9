"""Why a gateway cannot start or go on: one line for the operator and the exit code."""

from wghsm.exits import ExitCode

__all__ = ["GatewayFault"]


class GatewayFault(Exception):  # noqa: N818
    """Ends the gateway with `exit_code`; `str()` is the one line."""

    def __init__(self, exit_code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code
