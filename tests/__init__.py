"""The tests: unit, token, network and property tests."""
