"""pkcs11: URIs: what is read, what is refused with a remedy, and that writing and reading agree."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wghsm.exits import ExitCode
from wghsm.pkcs11_backend import TokenUri, UriError

_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")) | st.just(" "), min_size=1, max_size=40)
_URIS = st.builds(
    TokenUri,
    module_path=st.none() | _WORDS.map(lambda word: "/" + word),
    token=st.none() | _WORDS,
    serial=st.none() | _WORDS,
    slot_id=st.none() | st.integers(0, 2**64 - 1),
    object=st.none() | _WORDS,
    id=st.none() | st.binary(max_size=20),
    pin_source=st.none() | _WORDS,
    manufacturer=st.none() | _WORDS,
    model=st.none() | _WORDS,
    init_args=st.none() | _WORDS,
)


def test_the_documented_example() -> None:
    uri = TokenUri.parse("pkcs11:token=gw?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/wghsm/pin")
    assert (uri.token, uri.module_path) == ("gw", "/usr/lib/softhsm/libsofthsm2.so")
    assert uri.pin_source == "file:/etc/wghsm/pin"
    assert str(uri) == ("pkcs11:token=gw?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/wghsm/pin")


def test_every_attribute() -> None:
    uri = TokenUri.parse(
        "pkcs11:token=My%20Token;serial=0a%2F1;slot-id=7;object=g;id=%00%FF%3b;manufacturer=M;model=v2?module-path=/m.so"
    )
    assert (uri.token, uri.serial, uri.slot_id, uri.object) == ("My Token", "0a/1", 7, "g")
    assert (uri.id, uri.manufacturer, uri.model) == (b"\x00\xff;", "M", "v2")


def test_a_modules_init_string() -> None:
    uri = TokenUri.parse("pkcs11:token=n?module-path=/nss.so&x-init-args=configdir='sql:/etc/n'%20flags=%20a=''")
    assert uri.init_args == "configdir='sql:/etc/n' flags= a=''"
    assert str(uri).endswith("&x-init-args=configdir='sql:/etc/n'%20flags=%20a=''")


@given(_URIS)
def test_writing_then_reading_gives_the_same(uri: TokenUri) -> None:
    text = str(uri)
    assert TokenUri.parse(text) == uri
    assert set(text) <= set(string.ascii_letters + string.digits + "-._~:[]@!$'()*+,=&/?|%;")


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda tail: "pkcs11:" + tail))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        uri = TokenUri.parse(text)
    except UriError as fault:
        assert str(fault).startswith("token URI: ")
        assert "\n" not in str(fault)
        assert fault.exit_code is ExitCode.BAD_CONFIG
    else:
        assert TokenUri.parse(str(uri)) == uri


@pytest.mark.parametrize("side", [";", "?", "?module-path=/m.so&"])
def test_a_pin_in_the_uri_is_refused_and_not_repeated(side: str) -> None:
    with pytest.raises(UriError, match=r"pin-value is refused.*pin-source=file:") as caught:
        TokenUri.parse(f"pkcs11:token=gw{side}pin-value=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("token=gw", 'must begin with "pkcs11:"'),
        ("pkcs11:tokn=gw", 'unknown attribute "tokn"'),
        ("pkcs11:token=gw?x-vendor=1", 'unknown attribute "x-vendor"'),
        ("pkcs11:token=gw;token=gx", '"token" is given twice'),
        ("pkcs11:token", '"token" has no value'),
        ("pkcs11:token=", '"token" is empty'),
        ("pkcs11:token=a%2", "no %XX escape"),
        ("pkcs11:token=a%zz", "no %XX escape"),
        ("pkcs11:token=My Token", "write a space as %20"),
        ("pkcs11:token=%FF", "not UTF-8"),
        ("pkcs11:token=a%00b", "control character"),
        ("pkcs11:module-path=/m.so", "wrong side; write it after the ?"),
        ("pkcs11:?token=gw", "wrong side; write it before the ?"),
        ("pkcs11:slot-id=0x1", "decimal number"),
        ("pkcs11:slot-id=" + "9" * 5000, "decimal number"),
        ("pkcs11:?module-path=libsofthsm2.so", "absolute path"),
    ],
)
def test_what_is_refused_says_why(text: str, said: str) -> None:
    with pytest.raises(UriError) as caught:
        TokenUri.parse(text)
    assert said in str(caught.value)
