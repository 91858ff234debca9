"""`wghsm token ... --json`."""

from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from . import said

__all__ = [
    "DoctorFinding",
    "DoctorReport",
    "DoctorToken",
    "Level",
    "TokenDescribed",
    "TokenMade",
]

Level = Literal["green", "yellow", "red"]


class TokenMade(Struct, frozen=True, kw_only=True):
    """A token that was made. The last three are there with --softhsm only."""

    uri: Annotated[str, said("pkcs11: URI for the gateway file")]
    environment: Annotated[dict[str, str] | UnsetType, said("what must be in the environment of every command")] = UNSET
    pin_file: Annotated[str | UnsetType, said("the file that holds the PIN")] = UNSET
    so_pin_file: Annotated[str | UnsetType, said("the file that holds the security officer's PIN")] = UNSET


class TokenDescribed(Struct, frozen=True, kw_only=True):
    """One token, as its module describes it."""

    slot_id: Annotated[int, said("the module's number of its slot")]
    label: Annotated[str, said("its label")]
    serial: Annotated[str, said("its serial number")]
    manufacturer: Annotated[str, said("who made it")]
    model: Annotated[str, said("what it is")]
    initialised: Annotated[bool, said("false: an empty slot, in which a token can be made")]
    flags: Annotated[list[str], said("the CKF_ flags that matter to an operator")]
    x25519: Annotated[str | None, said("the dialect in which it offers X25519; null: in none that wghsm knows")]
    uri: Annotated[str, said("pkcs11: URI that names this token")]
    hardware: Annotated[str, said("version of the hardware")]
    firmware: Annotated[str, said("version of the firmware")]
    pin_lengths: Annotated[tuple[int, int] | None, said("least and greatest length of a PIN in bytes; null: not said")]


class DoctorFinding(Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    check: Annotated[str, said("what was looked at")]
    level: Annotated[Level, said("yellow: a gateway serves with it; red: it does not, or keeps no secret")]
    text: Annotated[str, said("how it is")]
    remedy: Annotated[str, said("what to do; empty where all is well")]


class DoctorModule(Struct, frozen=True, kw_only=True):
    """The vendor's PKCS#11 module."""

    path: Annotated[str, said("its file")]
    description: Annotated[str, said("how it describes itself")]


class DoctorSlot(Struct, frozen=True, kw_only=True):
    """The token, as it describes itself."""

    label: Annotated[str, said("its label")]
    serial: Annotated[str, said("its serial number")]
    manufacturer: Annotated[str, said("who made it")]
    model: Annotated[str, said("what it is")]
    slot_id: Annotated[int, said("the module's number of its slot")]


class DoctorSessions(Struct, frozen=True, kw_only=True):
    """Worker sessions."""

    wanted: Annotated[int, said("how many were asked for")]
    opened: Annotated[int, said("how many the token allowed")]


class DoctorLatency(Struct, frozen=True, kw_only=True):
    """How long derives take with so many at once."""

    sessions: Annotated[int, said("how many at once")]
    p50_ms: Annotated[float, said("the median, in milliseconds")]
    p99_ms: Annotated[float, said("the slowest hundredth, in milliseconds")]
    per_second: Annotated[float, said("derives a second, all together")]


class DoctorToken(Struct, frozen=True, kw_only=True):
    """All about one token; null is what was not found out, as after a red finding."""

    uri: Annotated[str, said("as it was named")]
    verdict: Annotated[Level, said("the worst of its findings")]
    module: Annotated[DoctorModule | None, said("the vendor's PKCS#11 module")]
    token: Annotated[DoctorSlot | None, said("the token, as it describes itself")]
    flags: Annotated[list[str] | None, said("its CKF_ flags")]
    mechanisms: Annotated[list[str] | None, said("its mechanisms, as far as wghsm has a use for them")]
    key: Annotated[str | None, said("the label of the gateway's key")]
    dialect: Annotated[str | None, said("the dialect in which it derives")]
    public_key: Annotated[str | None, said("the public key in base64, as a derive shows it")]
    previous_public_key: Annotated[str | None, said("that of the gateway file's previous_key")]
    attributes: Annotated[dict[str, bool | None] | None, said("what it says of the key, by name without CKA_")]
    psk_check_value: Annotated[str | None, said("hex, the same for the same PSK root; it tells nothing about the PSKs")]
    sessions: Annotated[DoctorSessions | None, said("worker sessions")]
    latency: Annotated[list[DoctorLatency] | None, said("how long derives take")]
    findings: Annotated[list[DoctorFinding], said("all that was looked at, in order")]


class DoctorReport(Struct, frozen=True, kw_only=True):
    """What the doctor found."""

    verdict: Annotated[Level, said("the worst of all findings")]
    exit_code: Annotated[int, said("the command's exit code")]
    tokens: Annotated[list[DoctorToken], said("each token, in the order in which they were named")]
    twins: Annotated[list[DoctorFinding], said("the tokens compared with each other; empty with one token")]
