"""Laying out a store and having a token made in it by a process of the store's owner.

    DIR/                 0711, root (0700 where everything belongs to the caller)
      softhsm2.conf      0644: SoftHSM's configuration, for SOFTHSM2_CONF
      LABEL.pin          0600, root: what pin-source=file: names; LABEL.so-pin likewise
      tokens/            0700, owned by the uid that will run the custodian, with everything in it

The PIN files lie outside the folder that the custodian's uid owns: root reads them at every start, and whoever
owns a folder could put a link to any other file in their place. Only `tokens/` is written by SoftHSM; an object
that root makes in a store of another uid is invisible to that uid, so the token is made by `_make`, a program that
changes to the owner before it loads the module.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import LabelTaken, ModuleMissing, TokenError, TokenUri
from wghsm.wipe import wipe

__all__ = ["SoftHsmToken", "find_module", "make_token", "softhsm_token", "store_owner"]

_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
_DEFAULT_CONF = Path("/etc/softhsm/softhsm2.conf")
_LABEL = re.compile(r"[A-Za-z0-9._-]{1,32}\Z")
_TOKENDIR = re.compile(r"^\s*directories\.tokendir\s*=\s*(\S.*?)\s*$", re.MULTILINE)


class SetupError(TokenError):
    """The store cannot be made as asked; one line says why."""

    exit_code = ExitCode.BAD_CONFIG


@dataclass(frozen=True)
class SoftHsmToken:
    """A token that was made: its URI (with pin-source), SoftHSM's configuration and the files that hold the PINs."""

    uri: str
    conf: Path
    pin_file: Path
    so_pin_file: Path
    directory: Path
    label: str
    module: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process that loads the module needs in its environment."""
        return {"SOFTHSM2_CONF": str(self.conf)}


def find_module() -> str:
    """Return the path of SoftHSM's module; raises ModuleMissing with the remedy."""
    for path in _MODULES:
        if Path(path).exists():
            return path
    raise ModuleMissing(f"SoftHSM 2 is not there (looked for {_MODULES[0]} and others); apt-get install softhsm2")


def make_token(
    directory: Path | str,
    *,
    label: str = "gw",
    uid: int | None = None,
    gid: int | None = None,
    pin: bytearray | None = None,
    so_pin: bytearray | None = None,
    keep_pin: bool = True,
    keep_so_pin: bool = True,
) -> SoftHsmToken:
    """Make the store `directory` if need be, and in it a token `label` that uid `uid` (gid: the same) will use.

    A PIN that is not given is random. With `keep_pin` and `keep_so_pin` each is written to its file.
    Another token may join a store that is there. Raises SetupError, LabelTaken,
    ModuleMissing, TokenError.
    """
    if not _LABEL.match(label):
        raise SetupError(f"token label {label!r}: use 1 to 32 letters, digits, dots, dashes or underscores")
    module = find_module()
    owner = os.geteuid() if uid is None else uid
    group = (os.getegid() if uid is None else owner) if gid is None else gid
    directory = Path(directory).absolute()
    made = _describe(directory, label, module)
    if made.pin_file.exists() or made.so_pin_file.exists():
        raise _taken(made)
    created = [path for path in (made.conf, directory / "tokens", directory) if not path.exists()]
    pins = {
        made.pin_file: bytearray(pin) if pin else _random_pin(),
        made.so_pin_file: bytearray(so_pin) if so_pin else _random_pin(),
    }
    written: list[Path] = []
    try:
        _lay_out(directory, made.conf, owner, group)
        for (path, value), keep in zip(pins.items(), (keep_pin, keep_so_pin), strict=True):
            if keep:
                _write_private(path, value)
                written.append(path)
        _make_in_child(made, owner, group, pin=pins[made.pin_file], so_pin=pins[made.so_pin_file])
    except BaseException as fault:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(fault, FileExistsError) and str(fault.filename) in map(str, pins):
            # Somebody else is making it at this moment, and the rest is theirs too.
            raise _taken(made) from None
        for path in created:
            _take_back(path)
        if isinstance(fault, OSError) and fault.filename is None:
            raise SetupError(f"{directory}: {fault.strerror}") from None
        raise
    finally:
        for value in pins.values():
            wipe(value)
    return made


@contextmanager
def softhsm_token(
    *,
    label: str = "wghsm-test",
    uid: int | None = None,
    gid: int | None = None,
    pin: bytearray | None = None,
    directory: Path | str | None = None,
) -> Iterator[SoftHsmToken]:
    """Make a token in a fresh folder of /tmp (or in `directory`), and remove the folder afterwards.

    The caller hands `.environment` to the processes that load the module. Raises as `make_token`.
    """
    folder = Path(tempfile.mkdtemp(prefix="wghsm-", dir="/tmp") if directory is None else directory)
    try:
        yield make_token(folder, label=label, uid=uid, gid=gid, pin=pin)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def store_owner(module_path: str | None, environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Return (uid, gid) of the SoftHSM store that a process with `environ` would use; None when it is no SoftHSM.

    Writing commands change to this owner first (SEAMS.md, last line).
    """
    if module_path is None or "softhsm" not in Path(module_path).resolve().name:
        return None
    candidates = [Path(environ["SOFTHSM2_CONF"])] if "SOFTHSM2_CONF" in environ else []
    if not candidates and "HOME" in environ:
        candidates.append(Path(environ["HOME"]) / ".config/softhsm2/softhsm2.conf")
    candidates.append(_DEFAULT_CONF)
    for conf in candidates:
        try:
            found = _TOKENDIR.search(conf.read_text(errors="replace"))
        except OSError:
            continue
        if found is None:
            return None
        try:
            about = Path(found[1]).stat()
        except OSError:
            return None
        return about.st_uid, about.st_gid
    return None


def _taken(made: SoftHsmToken) -> LabelTaken:
    return LabelTaken(
        f"{made.pin_file} exists: there is a token {made.label!r} already; choose another label or folder"
    )


def _describe(directory: Path, label: str, module: str) -> SoftHsmToken:
    pin_file = directory / f"{label}.pin"
    uri = TokenUri(module_path=module, token=label, pin_source=f"file:{pin_file}")
    return SoftHsmToken(
        uri=str(uri),
        conf=directory / "softhsm2.conf",
        pin_file=pin_file,
        so_pin_file=directory / f"{label}.so-pin",
        directory=directory,
        label=label,
        module=module,
    )


def _lay_out(directory: Path, conf: Path, uid: int, gid: int) -> None:
    foreign = uid != os.geteuid()
    if foreign and os.geteuid() != 0:
        raise SetupError(f"a store for uid {uid} can only be made by root")
    directory.mkdir(mode=0o711 if foreign else 0o700, parents=True, exist_ok=True)
    if directory.stat().st_uid != os.geteuid():
        raise SetupError(
            f"{directory} belongs to uid {directory.stat().st_uid}, who could change the PIN files; chown it"
        )
    # A folder with other things in it keeps its mode; the child says if the way is closed.
    if not any(directory.iterdir()):
        directory.chmod(0o711 if foreign else 0o700)
    tokens = directory / "tokens"
    if not tokens.exists():
        tokens.mkdir(mode=0o700)
        os.chown(tokens, uid, gid)
    elif tokens.stat().st_uid != uid:
        raise SetupError(f"{tokens} belongs to uid {tokens.stat().st_uid}, not to {uid}; use --uid or another folder")
    tokens.chmod(0o700)
    if not conf.exists():
        conf.write_text(
            f"directories.tokendir = {tokens}\n"
            "objectstore.backend = file\n"
            "log.level = ERROR\n"
            "slots.removable = false\n"
            "library.reset_on_fork = true\n"
        )
        conf.chmod(0o644)


def _take_back(path: Path) -> None:
    """Remove a file, or a folder that is empty."""
    with suppress(OSError):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def _random_pin() -> bytearray:
    return bytearray(secrets.token_hex(12), "ascii")


def _write_private(path: Path, value: bytearray) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, value)
        os.write(descriptor, b"\n")
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def _make_in_child(made: SoftHsmToken, uid: int, gid: int, pin: bytearray, so_pin: bytearray) -> None:
    """Run `_make` with the PINs on its standard input: never in its arguments or environment."""
    order = bytearray(json.dumps({"module": made.module, "label": made.label, "uid": uid, "gid": gid}).encode())
    for value in (so_pin, pin):
        order += b"\n"
        order += value
    order += b"\n"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "wghsm.softhsm_setup._make"],
            input=order,
            env={**made.environment, "PATH": os.defpath},
            cwd="/",
            capture_output=True,
            check=False,
        )
    finally:
        wipe(order)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SetupError(f"token {made.label!r} could not be made in {made.directory}: {lines[-1] if lines else '?'}")
