"""No test of this room depends on the gateways that the machine has, nor on their files."""

from pathlib import Path

import pytest

from wghsm.cli import _gateway_files
from wghsm.ipc import admin


@pytest.fixture(autouse=True)
def no_gateway_files(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /etc/wghsm."""
    folder = tmp_path_factory.mktemp("etc")
    monkeypatch.setattr(_gateway_files, "FOLDER", folder)
    return folder


@pytest.fixture(autouse=True)
def run_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /run/wghsm."""
    folder = tmp_path_factory.mktemp("run")
    monkeypatch.setattr(admin, "admin_socket_path", lambda name: folder / name / "admin.sock")
    return folder
