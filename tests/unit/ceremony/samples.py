"""A transcript as a ceremony of two tokens writes it, with made-up values."""

import base64

from wghsm.ceremony import (
    Done,
    Finding,
    ObjectSeen,
    Order,
    Participant,
    Software,
    TokenSeen,
    Transcript,
    fingerprint,
)

PROOF: tuple[str, ...] = (
    "SENSITIVE",
    "ALWAYS_SENSITIVE",
    "EXTRACTABLE",
    "NEVER_EXTRACTABLE",
    "LOCAL",
    "PRIVATE",
    "DERIVE",
    "SIGN",
)
PROOF += ("DECRYPT", "UNWRAP", "MODIFIABLE")


def software(name: str, version: str = "1.0") -> Software:
    """A program with a hash of its own."""
    return Software(name=name, version=version, path=f"/usr/lib/{name}", sha256=fingerprint(name.encode()))


def seen(kind: str, label: str, public: bytes | None = None, check: str | None = None) -> ObjectSeen:
    """An object that was made inside and never left."""
    true = ("SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL", "PRIVATE")
    uses = {"key": "DERIVE", "audit-key": "SIGN", "psk-root": "SIGN"}
    return ObjectSeen(
        kind=kind,  # type: ignore[arg-type]
        label=label,
        id=f"77676964{fingerprint(label.encode())[:16]}",
        attributes={name: name in true or uses.get(kind) == name for name in PROOF} | {"UNWRAP": None},
        key_type={"key": "0x41", "audit-key": "0x40"}.get(kind),
        length=32 if kind == "psk-root" else None,
        algorithm={"key": "X25519", "audit-key": "Ed25519"}.get(kind, ""),
        public_key=None if public is None else base64.b64encode(public).decode(),
        fingerprint=None if public is None else fingerprint(public),
        check_value=check,
        made="2026-03-14T09:41:07Z",
    )


def token(label: str = "gw", serial: str = "9f2c0a7d5e6b1c34") -> TokenSeen:
    """A software token with a key, a root and an audit key."""
    return TokenSeen(
        uri=f"pkcs11:token={label}?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=prompt",
        label=label,
        serial=serial,
        manufacturer="SoftHSM project",
        model="SoftHSM v2",
        hardware="2.06",
        firmware="2.06",
        flags=["LOGIN_REQUIRED", "RNG", "TOKEN_INITIALIZED", "USER_PIN_INITIALIZED"],
        module=Software(
            name="PKCS#11 module",
            version="Implementation of PKCS11 2.6, Cryptoki 2.40",
            path="/usr/lib/softhsm/libsofthsm2.so",
            sha256=fingerprint(b"module"),
        ),
        objects=[
            seen("key", "gateway", bytes(range(32))),
            seen("psk-root", "wghsm-psk-root", check="5b2f9d0c11a7e384"),
            seen("audit-key", "wghsm-audit", bytes.fromhex("302a300506032b6570032100") + bytes(range(32, 64))),
        ],
        findings=[
            Finding("module", "green", "libsofthsm2.so: Implementation of PKCS11 2.6, Cryptoki 2.40"),
            Finding("value", "green", "the token refuses to give the private key's value"),
            Finding("software", "yellow", "this is a software token: its keys are in files", "use hardware"),
        ],
    )


def transcript() -> Transcript:
    """A ceremony of two people that was interrupted once."""
    steps = [
        ("people", "Who is here", ["Ada Lindqvist, key custodian 1", "Bram de Wit, key custodian 2"]),
        ("software", "The software of this machine", ["5 programs and libraries were hashed."]),
        (
            "token-1",
            "Token: initialisation and PINs",
            [
                "Token 'gw' was initialised. The SO PIN was typed by Ada Lindqvist and Bram de Wit, a half each.",
                "The user PIN was typed by Bram de Wit and Ada Lindqvist, a half each.",
            ],
        ),
        ("gateway-key", "The gateway's key", ["Key 'gateway' was made in token 'gw'. Its public key is below."]),
        (
            "psk-root",
            "The root of pre-shared keys",
            ["Root 'wghsm-psk-root' was made, check value 5b2f 9d0c 11a7 e384."],
        ),
        ("audit-key-1", "The audit key", ["Key 'wghsm-audit' (Ed25519) was made in token 'gw'."]),
        ("proof-1", "Examination and reading back", ["The doctor's verdict is yellow (2 green, 1 yellow, 0 red)."]),
    ]
    return Transcript(
        id="c0ffee00112233445566778899aabbcc",
        host="vault-7.example.org, Linux 6.1.0-18-amd64, Debian GNU/Linux 12 (bookworm)",
        order=Order(
            gateway="wg0",
            uris=[token().uri],
            key="gateway",
            psk_root="wghsm-psk-root",
            audit_key="wghsm-audit",
        ),
        sittings=["2026-03-14T09:30:12Z", "2026-03-14T09:40:55Z"],
        ended="2026-03-14T09:47:30Z",
        participants=[
            Participant("Ada Lindqvist", "key custodian 1"),
            Participant("Bram de Wit", "key custodian 2"),
            Participant("Chiara Rossi", "witness, internal audit"),
        ],
        software=[software("wghsm", "0.1.0"), software("python", "3.11.2"), software("python-pkcs11", "0.9.4")],
        steps=[
            Done(name=name, title=title, began="2026-03-14T09:41:00Z", ended="2026-03-14T09:41:30Z", did=did)
            for name, title, did in steps
        ],
        tokens=[token()],
    )
