"""The custody suite on a token that the environment names, as docs/hsm.md tells those who qualify one."""

import os
import subprocess
import sys
from pathlib import Path

from tests.token.conftest import environment
from wghsm.pkcs11_backend import TokenPool
from wghsm.pkcs11_backend.provision import generate_key, list_keys
from wghsm.softhsm_setup import softhsm_token

_PIN = b"your-1234"


def test_the_suite_runs_on_it_and_leaves_what_was_there() -> None:
    with softhsm_token(pin=bytearray(_PIN)) as made, environment(made.environment):
        with TokenPool.open(made.uri, bytearray(_PIN), 1, read_write=True) as pool:
            generate_key(pool, "mine")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-k", "yours", Path(__file__).with_name("test_custody.py")],
            env={**os.environ, "WGHSM_TEST_TOKEN": made.uri},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "skipped" not in done.stdout
        with TokenPool.open(made.uri, bytearray(_PIN), 1) as pool:
            assert [each.label for each in list_keys(pool)] == ["mine"]
