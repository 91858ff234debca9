"""Reads the QR codes that wghsm draws, with another library than the one that drew them."""

import re
import struct
import zlib

import click
import zxingcpp

__all__ = ["of_png", "of_svg", "of_terminal"]

Dots = list[list[int]]
"""Rows of 0 (light) and 1 (dark)."""


def of_terminal(drawn: str) -> str:
    """The text of a code in half blocks: what is drawn is light."""
    rows: Dots = []
    for line in click.unstyle(drawn).splitlines():
        if line and set(line) <= set("█▀▄ "):
            rows.append([int(each in " ▄") for each in line])
            rows.append([int(each in " ▀") for each in line])
    return _read(rows)


def of_png(data: bytes) -> str:
    """The text of a PNG of one bit or eight bits a dot, without interlacing."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert depth in (1, 8)
    assert colour in (0, 3)
    packed, place = b"", 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        packed += data[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        place += 12 + length
    raw, stride = zlib.decompress(packed), (width * depth + 7) // 8
    rows, before = [], bytes(stride)
    for number in range(height):
        start = number * (stride + 1)
        how, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
        for at in range(stride):
            left, up = line[at - 1] if at else 0, before[at]
            line[at] = (line[at] + (0, left, up, (left + up) // 2)[how]) & 255
        before = bytes(line)
        bits = "".join(f"{byte:08b}" for byte in line)
        rows.append([int(bits[x * depth] == "0") for x in range(width)])
    return _read(rows, scale=1)


def of_svg(data: bytes) -> str:
    """The text of an SVG that draws dark runs with the commands M, m and h."""
    drawing = data.decode()
    size = int(re.findall(r'width="(\d+)"', drawing)[0])
    scale = int(re.findall(r"scale\((\d+)\)", drawing)[0])
    path = re.findall(r'class="qrline"[^>]* d="([^"]*)"', drawing)[0]
    rows = [[0] * (size // scale) for _ in range(size // scale)]
    x = y = 0.0
    for command, numbers in re.findall(r"([Mmh])([-0-9. ]*)", path):
        values = [float(each) for each in numbers.split()]
        if command == "h":
            for step in range(int(values[0])):
                rows[int(y)][int(x) + step] = 1
            x += values[0]
        elif command == "m":
            x, y = x + values[0], y + values[1]
        else:
            x, y = values
    return _read(rows)


def _read(rows: Dots, scale: int = 4) -> str:
    wide = [[dot for dot in row for _ in range(scale)] for row in rows for _ in range(scale)]
    dots = bytes(0 if dot else 255 for row in wide for dot in row)
    (found,) = zxingcpp.read_barcodes(memoryview(dots).cast("B", (len(wide), len(wide[0]))))
    return str(found.text)
