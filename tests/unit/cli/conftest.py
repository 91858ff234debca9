"""No test of this room depends on the gateway files that the machine has."""

from pathlib import Path

import pytest

from wghsm.cli import _gateway_files


@pytest.fixture(autouse=True)
def no_gateway_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /etc/wghsm."""
    folder = tmp_path_factory.mktemp("etc")
    monkeypatch.setattr(_gateway_files, "FOLDER", folder)
    return folder
