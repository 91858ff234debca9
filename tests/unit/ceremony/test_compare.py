"""A transcript against the token of today."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.ceremony.samples import PROOF, seen, software, transcript
from wghsm.ceremony import TokenSeen, compare

THEN = transcript()
TOKEN = THEN.tokens[0]


def _differ(token: TokenSeen) -> list[tuple[str, bool]]:
    return [(one.what, one.breaks) for one in compare(THEN, [token], THEN.software)]


def test_the_same_token_agrees() -> None:
    assert _differ(TOKEN) == []


@pytest.mark.parametrize("name", ["label", "serial", "manufacturer", "model", "hardware", "firmware"])
def test_another_token(name: str) -> None:
    assert _differ(msgspec.structs.replace(TOKEN, **{name: "other"})) == [(name, True)]


@given(place=st.integers(0, len(TOKEN.objects) - 1), name=st.sampled_from(PROOF))
def test_each_attribute_counts(place: int, name: str) -> None:
    objects = list(TOKEN.objects)
    was = objects[place].attributes[name]
    changed = {**objects[place].attributes, name: None if was is False else not was}
    objects[place] = msgspec.structs.replace(objects[place], attributes=changed)
    (found,) = _differ(msgspec.structs.replace(TOKEN, objects=objects))
    assert found[0].endswith(f"CKA_{name}")
    assert found[1]


@pytest.mark.parametrize("fact", ["id", "key_type", "length", "public_key", "check_value", "made", "algorithm"])
def test_each_fact_counts(fact: str) -> None:
    first, *rest = TOKEN.objects
    other = msgspec.structs.replace(first, **{fact: "other"})
    found = _differ(msgspec.structs.replace(TOKEN, objects=[other, *rest]))
    assert found == [(f"key 'gateway': {fact.replace('_', ' ')}", True)]


def test_a_key_that_is_gone() -> None:
    assert _differ(msgspec.structs.replace(TOKEN, objects=TOKEN.objects[1:])) == [("key 'gateway'", True)]


def test_what_has_come_breaks_nothing() -> None:
    found = _differ(msgspec.structs.replace(TOKEN, objects=[*TOKEN.objects, seen("key", "gateway-2")]))
    assert found == [("key 'gateway-2'", False)]


def test_other_software_breaks_nothing() -> None:
    today = [software("wghsm"), msgspec.structs.replace(software("python"), sha256="0" * 64), software("new")]
    found = [(one.what, one.breaks) for one in compare(THEN, [TOKEN], today)]
    assert found == [("python", False), ("new", False), ("python-pkcs11", False)]
