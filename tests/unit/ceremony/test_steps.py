"""Which steps a ceremony has, and in which order."""

from wghsm.ceremony import Order, plan


def names(**order: object) -> list[str]:
    return [step.name for step in plan(Order(gateway="wg0", key="gateway", **order))]  # type: ignore[arg-type]


def test_one_token() -> None:
    assert names(uris=["a"], psk_root="r", wrap_key="w", audit_key="s") == [
        "people",
        "software",
        "token-1",
        "gateway-key",
        "psk-root",
        "wrap-key",
        "audit-key-1",
        "proof-1",
    ]


def test_what_the_file_does_not_name_is_not_made() -> None:
    assert names(uris=["a"]) == ["people", "software", "token-1", "gateway-key", "proof-1"]


def test_two_tokens_and_a_wrapped_copy() -> None:
    assert names(uris=["a", "b"], copy="wrapped:aes", audit_key="s") == [
        "people",
        "software",
        "token-1",
        "token-2",
        "gateway-key",
        "copy-2",
        "audit-key-1",
        "audit-key-2",
        "proof-1",
        "proof-2",
    ]


def test_a_key_that_is_imported_needs_no_copy() -> None:
    assert "copy-2" not in names(uris=["a", "b"], copy="import")
    assert "copy-2" not in names(uris=["a", "b"])


def test_every_step_says_what_will_happen() -> None:
    order = Order(gateway="wg0", uris=["a", "b"], key="k", psk_root="r", wrap_key="w", audit_key="s", copy="wrapped:x")
    assert all(step.title and step.tells for step in plan(order))
    assert [step.token for step in plan(order) if step.name.endswith("-2")] == [1, 1, 1, 1]
