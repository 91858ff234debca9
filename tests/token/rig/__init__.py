"""The fault rig (rig.c): SoftHSM behind a module that spells X25519 by the standard and fails on command.

    with rig_token() as token:                       a token of its own, with a module file of its own
        token.made.uri                               opens like any other; CKK_EC_MONTGOMERY, 0x1056
        rig = token.rig
        rig.fail("C_DeriveKey", 0x30)                from now on, in every process that has the module
        rig.fail("C_Login", 0xE0, skip=1, times=2)   the second and third call from now
        rig.slow(0.01)                               every call, or those of one function
        rig.hang("C_DeriveKey", seconds=5)           until then, or until it is cleared
        rig.crash("C_DeriveKey")                     a segmentation fault in the process that calls it
        rig.clear()
        rig.calls("C_DeriveKey")                     how often it was called
        rig.cpu_seconds()                            what all calls have taken of the processor, in all processes

The settings are one shared mapping: no process needs to be told, and a custodian of another uid sees them too.
"""

import contextlib
import dataclasses
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from wghsm.softhsm_setup import SoftHsmToken, softhsm_token

__all__ = ["Rig", "RigToken", "rig_token"]

# struct control, struct rule and struct counter of rig.c.
_SETTINGS = (
    *("montgomery", "named_curve_only", "raw_point_only", "kdf_only", "derive_refuses", "derive_needs"),
    *("session_limit", "flags_set", "flags_clear"),
)
_HIDDEN = 16
_RULES = 16
_RULE = struct.Struct("=II32sQQqqQQQ")
_COUNTER = struct.Struct("=32sQQ")
_COUNTERS = 64
_AT_SETTINGS = 256
_AT_HIDDEN = _AT_SETTINGS + 8 * len(_SETTINGS)
_AT_RULES = _AT_HIDDEN + 8 * _HIDDEN
_AT_COUNTERS = _AT_RULES + _RULES * _RULE.size
_NONE = 2**64 - 1
_RETURN, _HANG, _CRASH = 1, 2, 3


class Rig:
    """The control file of one rig module. Faults add up, in the order given, until `clear`."""

    def __init__(self, path: Path, behind: str) -> None:
        size = _AT_COUNTERS + _COUNTERS * _COUNTER.size
        with path.open("w+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)
        # A custodian of another uid maps it too.
        path.chmod(0o666)
        self._memory[: len(behind)] = behind.encode()
        self.present()

    def present(self, **settings: int) -> None:
        """Be this kind of token, and no other: the fields of struct control.

        Without arguments it is a plain token that spells X25519 by the standard and wants raw points.
        """
        values: dict[str, int] = {"montgomery": 1, "raw_point_only": 1, "session_limit": 0, **settings}
        for name in ("named_curve_only", "kdf_only", "flags_set", "flags_clear"):
            values.setdefault(name, 0)
        packed = [values.pop(name, None) for name in _SETTINGS]
        if values:
            raise ValueError(f"the rig knows no {', '.join(values)}")
        whole = [_NONE if value is None else value for value in packed]
        struct.pack_into(f"={len(whole)}Q", self._memory, _AT_SETTINGS, *whole)
        self.hide()

    def hide(self, *mechanisms: int) -> None:
        """List none of these mechanisms (CKM_), at most 16, and all others."""
        all_of_them = (*mechanisms, *(_NONE for _ in range(_HIDDEN - len(mechanisms))))
        struct.pack_into(f"={_HIDDEN}Q", self._memory, _AT_HIDDEN, *all_of_them)

    def fail(
        self,
        function: str,
        ckr: int,
        *,
        skip: int = 0,
        times: int | None = None,
        seconds: float | None = None,
        attribute: int | None = None,
    ) -> int:
        """Return `ckr` (CKR_) from `function` (a C_ name, or *) instead of calling it; give the fault's number.

        The first `skip` calls go through, then `times` are caught (None: all), for at most `seconds` from now. With
        `attribute` (CKA_) only calls with a template that holds it count.
        """
        return self._add(function, _RETURN, ckr, 0.0, skip, times, seconds, attribute)

    def slow(self, delay: float, function: str = "*", *, times: int | None = None, seconds: float | None = None) -> int:
        """Let every call of `function` take `delay` seconds longer."""
        return self._add(function, 0, 0, delay, 0, times, seconds, None)

    def hang(self, function: str, *, skip: int = 0, times: int | None = None, seconds: float | None = None) -> int:
        """Keep the callers of `function` until `seconds` have passed or the fault is cleared; then go on."""
        return self._add(function, _HANG, 0, 0.0, skip, times, seconds, None)

    def crash(self, function: str, *, skip: int = 0, times: int | None = None) -> int:
        """Crash the process that calls `function`."""
        return self._add(function, _CRASH, 0, 0.0, skip, times, None, None)

    def clear(self) -> None:
        """Take every fault away; who hangs goes on."""
        for number in range(_RULES):
            struct.pack_into("=I", self._memory, _AT_RULES + number * _RULE.size, 0)

    def hits(self, fault: int) -> int:
        """Say how many calls the fault has caught."""
        return int(_RULE.unpack_from(self._memory, _AT_RULES + fault * _RULE.size)[-1])

    def calls(self, function: str) -> int:
        """Say how often any process has called `function`."""
        for name, count, _ in _COUNTER.iter_unpack(self._memory[_AT_COUNTERS:]):
            if name.rstrip(b"\0") == function.encode():
                return int(count)
        raise ValueError(f"the rig counts no {function}; is the module loaded?")

    def cpu_seconds(self) -> float:
        """Say how much CPU time all processes have spent in the module's calls."""
        return sum(int(spent) for _, _, spent in _COUNTER.iter_unpack(self._memory[_AT_COUNTERS:])) / 1e9

    def close(self) -> None:
        """Let go of the mapping."""
        self._memory.close()

    def _add(
        self,
        function: str,
        action: int,
        ckr: int,
        delay: float,
        skip: int,
        times: int | None,
        seconds: float | None,
        attribute: int | None,
    ) -> int:
        until = 0 if seconds is None else time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(seconds * 1e9)
        for number in range(_RULES):
            at = _AT_RULES + number * _RULE.size
            if struct.unpack_from("=I", self._memory, at)[0]:
                continue
            _RULE.pack_into(
                self._memory,
                at,
                0,
                action,
                function.encode(),
                ckr,
                int(delay * 1e9),
                skip,
                -1 if times is None else times,
                until,
                _NONE if attribute is None else attribute,
                0,
            )
            # Last: the module looks at a fault only when this is set.
            struct.pack_into("=I", self._memory, at, 1)
            return number
        raise ValueError("the rig has no room for another fault; clear it first")


@dataclasses.dataclass(frozen=True)
class RigToken:
    """A SoftHSM token whose URI names the rig; `made` is as softhsm_setup hands it out."""

    made: SoftHsmToken
    rig: Rig

    @property
    def pin(self) -> bytes:
        return self.made.pin_file.read_bytes().strip()


@contextlib.contextmanager
def rig_token(label: str = "gw", uid: int | None = None, pin: bytearray | None = None) -> Iterator[RigToken]:
    """Make a token for the custodian's `uid` (default: ours) behind a rig of its own, and take both away."""
    with softhsm_token(label=label, uid=uid, pin=pin) as made:
        # The name says softhsm: the commands then find the store's owner by SoftHSM's configuration.
        module = made.directory / f"rig-{os.getpid()}-libsofthsm2.so"
        shutil.copyfile(_built(), module)
        module.chmod(0o755)
        rig = Rig(Path(f"{module}.rig"), str(made.module))
        uri = made.uri.replace(str(made.module), str(module))
        try:
            yield RigToken(dataclasses.replace(made, uri=uri, module=str(module)), rig)
        finally:
            rig.clear()
            rig.close()


@functools.cache
def _built() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="wghsm-", dir="/tmp")
    _folders.append(folder)
    target = Path(folder.name) / "rig.so"
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-I/usr/include/p11-kit-1")
    source = Path(__file__).with_name("rig.c")
    subprocess.run(["gcc", *flags, "-o", str(target), str(source), "-ldl"], check=True)
    return target


_folders: list["tempfile.TemporaryDirectory[str]"] = []
