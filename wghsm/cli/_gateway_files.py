"""Which gateway file a command means: FILE|NAME, -c GATEWAY.yaml, or the only one in /etc/wghsm; commands ask here."""

from pathlib import Path

from wghsm.cli._output import CommandError
from wghsm.exits import ExitCode

__all__ = [
    "FOLDER",
    "gateway_file",
    "gateway_files",
    "gateway_path",
    "known_gateways",
    "names_a_file",
    "only_gateway",
]

FOLDER = Path("/etc/wghsm")
"""Where the gateway files are: NAME.yaml of the gateway NAME."""


def gateway_files() -> list[Path]:
    """The gateway files in that folder, in order."""
    return sorted(FOLDER.glob("*.yaml"))


def gateway_path(config: str | None) -> Path:
    """The gateway file that is meant. Raises CommandError."""
    if config is not None:
        return Path(config)
    only = only_gateway()
    if only is None:
        raise CommandError(f"name the gateway file: -c GATEWAY.yaml; {known_gateways()}", ExitCode.BAD_CONFIG)
    return only


def names_a_file(target: str) -> bool:
    """Whether FILE|NAME is the path of a file, not a gateway's name."""
    return "/" in target or target.endswith((".yaml", ".yml")) or Path(target).is_file()


def gateway_file(target: str) -> Path:
    """The gateway file that FILE|NAME means: that file, or NAME.yaml in /etc/wghsm. Raises CommandError."""
    if names_a_file(target):
        return Path(target)
    file = FOLDER / f"{target}.yaml"
    if not file.is_file():
        raise CommandError(
            f"no gateway file for {target!r}: looked for {file}, and for a file {target!r} here; {known_gateways()}",
            ExitCode.BAD_CONFIG,
        )
    return file


def only_gateway() -> Path | None:
    """The gateway file that is meant where none is named: the only one in /etc/wghsm."""
    found = gateway_files()
    return found[0] if len(found) == 1 else None


def known_gateways() -> str:
    """What /etc/wghsm has, in words."""
    found = gateway_files()
    return f"there is: {', '.join(map(str, found))}" if found else f"there is none in {FOLDER}"
