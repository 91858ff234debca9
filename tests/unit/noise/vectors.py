"""Known answers for the noise tests: data files of tests/vectors and the bytes of PROTOCOL.md section 17."""

import json
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[2] / "vectors"


def load(name: str) -> dict[str, Any]:
    """Content of one data file."""
    content: dict[str, Any] = json.loads((DIRECTORY / name).read_text())
    return content


S_I, S_R, E_I, E_R, PSK = (bytes([value]) * 32 for value in range(1, 6))
COOKIE_SECRET = bytes([6]) * 32
COOKIE_NONCE = bytes([7]) * 24
TIMESTAMP = bytes.fromhex("400000006553f10a00000000")
I_I = 0x11223344
I_R = 0x55667788
PUBLIC_S_I = bytes.fromhex("a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209")
PUBLIC_S_R = bytes.fromhex("ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59")
PUBLIC_E_I = bytes.fromhex("5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef22")
PUBLIC_E_R = bytes.fromhex("ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b")
MESSAGE_1 = bytes.fromhex(
    "01000000443322115dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef220a26599fb2188bb7"
    "23276fc173af67616c817fc32fd04d686d87ec152fac10eed2bda3bb3b6f1eded6977684082284d817fb46b3a99b6be3"
    "bd273ed6533c68635663c21c99296e34deaf1c8fe94fa4a2254a3a56cb996456ae5b324a000000000000000000000000"
    "00000000"
)
CHAINING_KEY_1 = bytes.fromhex("4696b0ed00cff9c62cf447eb5f9c899d508e66b889a8cef23c4ae5c60f902b5e")
HASH_1 = bytes.fromhex("19016b217eaa957379f75f0e5719be9973d51b0b90cdcdf7fc98f1c4e65f7bd4")
MESSAGE_2 = bytes.fromhex(
    "020000008877665544332211ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b5176a106"
    "0259947cb4f5a7beef58df6998fda57eb8180ee4cc29d2d24386638100000000000000000000000000000000"
)
CHAINING_KEY_2 = bytes.fromhex("3d0fb6de8bdff0e5f3eb777d9ce6ba3252d233cf1b68aafe0a3a385c293d4b66")
HASH_2 = bytes.fromhex("96025bdb1bfcb4a7f78c2d9440985b059194e47ed91f5c420848262f741f14d3")
T_I2R = bytes.fromhex("a18cc809fd05b6b5f99644cf506f89dce368c2f54a9dbeb9a384f36c274317ef")
T_R2I = bytes.fromhex("b1aa1b797d3a45da97552b8084ade493aa767f15af95854bc86557f6dacd851d")
KEEPALIVE_I2R = bytes.fromhex("040000008877665500000000000000002573d3030aabba0c616df8e5a1bab60b")
COOKIE = bytes.fromhex("f13b68657cfce9a650fa6c62fd9bd6c1")
COOKIE_SOURCE = bytes((192, 0, 2, 1)) + (51820).to_bytes(2, "big")
MESSAGE_1_MAC2 = bytes.fromhex("3685f5b36f8468b17739a08ed4c18df9")
COOKIE_REPLY = bytes.fromhex(
    "030000004433221107070707070707070707070707070707070707070707070751c3d2af16c263b6308af5a5d9332c7b"
    "cda0314458173527c799b97860c25c2b"
)
