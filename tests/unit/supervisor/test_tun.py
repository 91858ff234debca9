"""What the TUN device is asked for, and what is left where a kernel does not know it."""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator

import pytest

from tests.network.support import unique_interface
from wghsm.supervisor._tun import Tun

_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_VNET_HDR = 0x4000
_USO = 0x60


class _Kernel:
    """The kernel, without virtio_net_hdr or some of the offloads."""

    def __init__(self, *, vnet: bool = True, refused: int = 0) -> None:
        self._vnet = vnet
        self._refused = refused
        self.offloads: list[int] = []

    def __call__(self, fd: int, request: int, argument: bytes | int) -> object:
        if request == _TUNSETIFF:
            assert isinstance(argument, bytes)
            if not self._vnet and int.from_bytes(argument[16:18], "little") & _IFF_VNET_HDR:
                raise OSError(errno.EINVAL, "Invalid argument")
        if request == _TUNSETOFFLOAD:
            assert isinstance(argument, int)
            self.offloads.append(argument)
            if argument & self._refused:
                raise OSError(errno.EINVAL, "Invalid argument")
        return fcntl.ioctl(fd, request, argument)


@pytest.fixture
def name() -> Iterator[str]:
    yield unique_interface("wgt")


def test_everything_is_asked_for(name: str) -> None:
    kernel = _Kernel()
    tun = Tun(name, kernel)
    assert (tun.vnet, tun.uso) == (True, True)
    assert kernel.offloads == [0x67]
    tun.close()


def test_a_kernel_before_6_2_has_no_uso(name: str) -> None:
    kernel = _Kernel(refused=_USO)
    tun = Tun(name, kernel)
    assert (tun.vnet, tun.uso) == (True, False)
    assert kernel.offloads == [0x67, 0x07]
    tun.close()


def test_a_driver_without_offloads_is_told_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    tun = Tun(name, _Kernel(refused=0x67))
    assert (tun.vnet, tun.uso) == (True, False)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    tun.close()


def test_a_driver_without_virtio_net_hdr_gives_plain_packets(name: str, caplog: pytest.LogCaptureFixture) -> None:
    tun = Tun(name, _Kernel(vnet=False))
    assert (tun.vnet, tun.uso) == (False, False)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert tun.exists()
    assert os.get_blocking(tun.fd) is False
    tun.close()
