"""The steps of a ceremony in their order, and what is said before each.

    people -> software -> each token -> gateway's key (and its copy) -> PSK root -> wrapping key -> audit key
    -> doctor and reading back of each token

A step that was interrupted is undone and done again; one that is done is never repeated.
"""

from dataclasses import dataclass

from wghsm.ceremony.record import Order

__all__ = ["Step", "plan"]


@dataclass(frozen=True)
class Step:
    """`name` is what the journal knows it by, `token` the place of its token in the order, `tells` what will happen."""

    name: str
    title: str
    tells: tuple[str, ...]
    token: int = 0


_PEOPLE = Step(
    "people",
    "Who is here",
    (
        "Everybody who takes part says name and role. At least two people are needed: no PIN is known to one alone,",
        "or none of them knows both PINs.",
    ),
)
_SOFTWARE = Step(
    "software",
    "The software of this machine",
    (
        "Versions and SHA-256 hashes of wghsm, its interpreter, its libraries and the token's module are taken.",
        "Compare them with what was reviewed, or with another machine, before you go on.",
    ),
)


def plan(order: Order) -> list[Step]:
    """The steps for `order`."""
    steps = [_PEOPLE, _SOFTWARE]
    several = len(order.uris) > 1
    for place, _ in enumerate(order.uris):
        which = f" {place + 1} of {len(order.uris)}" if several else ""
        steps.append(
            Step(
                f"token-{place + 1}",
                f"Token{which}: initialisation and PINs",
                (
                    "An empty token gets its label, the PIN of its security officer (SO) and its user PIN.",
                    "Each is typed twice, unseen, and shown nowhere. A token that is initialised is never touched:",
                    "it may be taken as it is, and the transcript says so.",
                ),
                place,
            )
        )
    steps.append(_key(order))
    if several and order.copy.startswith("wrapped:"):
        steps += [
            Step(
                f"copy-{place + 1}",
                f"The gateway's key, copied into token {place + 1}",
                (
                    f"The key {order.key!r} leaves the first token wrapped under",
                    f"{order.copy.removeprefix('wrapped:')!r}, and is unwrapped in this one. "
                    "It is never in clear outside of a token.",
                ),
                place,
            )
            for place in range(1, len(order.uris))
        ]
    if order.psk_root is not None:
        steps.append(
            Step(
                "psk-root",
                "The root of pre-shared keys",
                (
                    f"The first token makes the secret {order.psk_root!r}, which may only sign. Derived pre-shared",
                    "keys come from it. Its check value tells later whether it is still the same one.",
                ),
            )
        )
    if order.wrap_key is not None:
        steps.append(
            Step(
                "wrap-key",
                "The key that wraps pre-shared keys",
                (f"The first token makes the AES key {order.wrap_key!r}, which may only encrypt and decrypt.",),
            )
        )
    if order.audit_key is not None:
        steps += [
            Step(
                f"audit-key-{place + 1}",
                "The audit key" + (f" of token {place + 1}" if several else ""),
                (
                    f"The token makes the key {order.audit_key!r}, which may only sign: it seals the audit log.",
                    "Whoever has its public key can verify the log without a token.",
                ),
                place,
            )
            for place in range(len(order.uris))
        ]
    steps += [
        Step(
            f"proof-{place + 1}",
            "Examination and reading back" + (f" of token {place + 1}" if several else ""),
            (
                "The doctor tries everything that a gateway needs of the token. Then every key and secret in it is",
                "read back: attributes, public keys, check values. Nothing is written.",
            ),
            place,
        )
        for place in range(len(order.uris))
    ]
    return steps


def _key(order: Order) -> Step:
    if order.copy == "import" and len(order.uris) > 1:
        return Step(
            "gateway-key",
            "The gateway's key",
            (
                f"The key {order.key!r} is made in the memory of this machine, brought into each token and wiped.",
                "The tokens say for good that it has been outside. This machine should have no network now.",
            ),
        )
    wrappable = "; it may leave wrapped under another key" if order.copy.startswith("wrapped:") else ""
    return Step(
        "gateway-key",
        "The gateway's key",
        (
            f"The first token makes the X25519 key {order.key!r}. It can never be read out{wrappable}.",
            "Its public key is what every peer of the gateway is told.",
        ),
    )
