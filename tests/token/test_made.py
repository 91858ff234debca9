"""When an object came into the token: each that wghsm makes tells it, and what others have made may."""

import dataclasses
import time

import pytest

from tests.token.conftest import TokenUnderTest
from wghsm.pkcs11_backend import TokenPool, _objects
from wghsm.pkcs11_backend._calls import Calls
from wghsm.pkcs11_backend._made import made
from wghsm.pkcs11_backend.errors import TokenFault
from wghsm.pkcs11_backend.key_import import import_key
from wghsm.pkcs11_backend.provision import derive_root, generate_key, list_keys, list_secrets, new_identity
from wghsm.pkcs11_backend.tokens import list_tokens
from wghsm.pkcs11_backend.uri import TokenUri


class _Object(Calls):
    """An object with these attributes; a fault stands for one that the token cannot read back."""

    def __init__(self, said: dict[str, bytes | TokenFault]) -> None:
        self.said = {_objects.CKA[name]: value for name, value in said.items()}

    def attribute(self, handle: int, kind: int) -> bytes | None:
        assert handle == 1
        value = self.said.get(kind)
        if isinstance(value, TokenFault):
            raise value
        return value


@pytest.mark.needs("key generation", "key import", "roots")
def test_what_is_made_says_since_when(pool: TokenPool, label: str) -> None:
    before = int(time.time())
    generate_key(pool, label)
    import_key(pool, f"{label}-in", bytearray(range(1, 33)))
    derive_root(pool, f"{label}-root")
    said = {report.label: report.made for report in list_keys(pool)}
    said |= {report.label: report.made for report in list_secrets(pool)}
    wanted = {
        (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)), "CKA_ID")
        for moment in range(before, int(time.time()) + 1)
    }
    assert {said[label], said[f"{label}-in"], said[f"{label}-root"]} <= wanted


def test_ids_differ() -> None:
    assert len({new_identity() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("said", "when"),
    [
        ({}, None),
        ({"ID": b"\x01"}, None),
        ({"ID": bytes(8)}, None),
        ({"ID": b"wgid\x00\x00\x00\x3c\x01\x02\x03\x04"}, ("1970-01-01T00:01:00Z", "CKA_ID")),
        ({"ID": b"wgid\x00\x00\x00\x3c", "START_DATE": b"20240229"}, ("2024-02-29T00:00:00Z", "CKA_START_DATE")),
        ({"START_DATE": b""}, None),
        ({"START_DATE": b"20230229"}, None),
        ({"START_DATE": bytes(8)}, None),
        ({"START_DATE": TokenFault(0x005, "C_GetAttributeValue")}, None),
    ],
)
def test_what_tells_the_date(said: dict[str, bytes | TokenFault], when: tuple[str, str] | None) -> None:
    assert made(_Object(said), 1) == when


def test_the_token_tells_its_versions_and_pin_lengths(token: TokenUnderTest) -> None:
    reports = [one for one in list_tokens(TokenUri.parse(token.uri)) if one.initialised]
    for report in reports:
        assert report.hardware.replace(".", "").isdigit()
        assert report.firmware.replace(".", "").isdigit()
        least, most = report.pin_lengths or (0, 255)
        assert 0 <= least <= most
    assert reports


def test_a_token_that_is_not_named_is_not_shown_with_the_pin_of_the_one_that_is(token: TokenUnderTest) -> None:
    named = dataclasses.replace(TokenUri.parse(token.uri), pin_source="file:/run/pin")
    shown = list_tokens(named)
    for one in shown:
        is_named = named.token in (None, one.label) and named.serial in (None, one.serial)
        assert TokenUri.parse(one.uri).pin_source == ("file:/run/pin" if is_named else None)
    assert any(TokenUri.parse(one.uri).pin_source for one in shown)
