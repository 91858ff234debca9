"""The process behind `GatewayToken`: works in a SoftHSM token as the owner of its store, with python-pkcs11 alone.

One order as JSON on standard input, its answer as JSON on standard output.
"""

import json
import os
import sys

import pkcs11
import pkcs11._pkcs11  # loaded on demand otherwise, when the other user may not reach this folder any more
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

X25519 = bytes.fromhex("06032b656e")


def import_x25519(session: pkcs11.Session, label: str, private: bytes) -> None:
    """Create a private key of 32 raw bytes, in the dialect of SoftHSM."""
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.PRIVATE_KEY,
            Attribute.KEY_TYPE: KeyType.EC_EDWARDS,
            Attribute.EC_PARAMS: X25519,
            Attribute.VALUE: private,
            Attribute.LABEL: label,
            **dict.fromkeys((Attribute.TOKEN, Attribute.PRIVATE, Attribute.SENSITIVE, Attribute.DERIVE), True),
            **dict.fromkeys((Attribute.EXTRACTABLE, Attribute.SIGN, Attribute.DECRYPT, Attribute.UNWRAP), False),
        }
    )


def make_p256(session: pkcs11.Session, label: str) -> None:
    """Generate a key pair of another curve."""
    parameters = session.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}, local=True
    )
    parameters.generate_keypair(store=True, label=label)


def read_secret(session: pkcs11.Session, label: str) -> str | None:
    """Give the value of a secret object, in hexadecimal."""
    for found in session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}):
        return bytes(found[Attribute.VALUE]).hex()
    return None


def main() -> None:
    """Become the store's owner, log in, do what is ordered."""
    order = json.load(sys.stdin)
    os.setgroups([])
    os.setgid(order["uid"])
    os.setuid(order["uid"])
    token = pkcs11.lib(order["module"]).get_token(token_label=order["token"])
    answer: object = True
    with token.open(rw=True, user_pin=order["pin"]) as session:
        if order["do"] == "import":
            import_x25519(session, order["label"], bytes.fromhex(order["private"]))
        elif order["do"] == "p256":
            make_p256(session, order["label"])
        elif order["do"] == "change the PIN":
            session.set_pin(order["pin"], order["new"])
        else:
            answer = read_secret(session, order["label"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
