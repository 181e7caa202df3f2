"""The waveform writer's compressors, against decoders written from the format descriptions."""

import ctypes
import subprocess
import zlib
from importlib import resources

import numpy as np
import pytest

from terntable.sim import toolchain


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codec")
    source = (resources.files("terntable.sim") / "codec.cpp").read_text()
    header = (resources.files("terntable.sim") / "codec.h").read_text()
    (folder / "codec.h").write_text('extern "C" {\n' + header.replace("#pragma once", "") + "}\n")
    (folder / "codec.cpp").write_text(source)
    subprocess.run(
        [toolchain.find().cxx, "-shared", "-fPIC", "-o", "codec.so", "codec.cpp"],
        cwd=folder,
        check=True,
    )
    return ctypes.CDLL(str(folder / "codec.so"))


def samples():
    rng = np.random.default_rng(3)
    yield b""
    yield b"a"
    yield b"abcdabcdabcdabcdabcd"
    yield bytes(100_000)
    yield rng.bytes(70_000)
    yield b"".join(rng.choice([b"signal_", b"top.", b"\x00\x01", b"clock"], 20_000).tolist())


def lz4_decode(block: bytes) -> bytes:
    out = bytearray()
    at = 0

    def length(n: int) -> int:
        nonlocal at
        if n == 15:
            while True:
                n += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        return n

    while at < len(block):
        token = block[at]
        at += 1
        n = length(token >> 4)
        out += block[at : at + n]
        at += n
        if at == len(block):
            break
        offset = block[at] | block[at + 1] << 8
        at += 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-offset])
    return bytes(out)


@pytest.mark.parametrize("data", list(samples()), ids=len)
def test_lz4(codec, data):
    room = codec.LZ4_compressBound(len(data))
    to = ctypes.create_string_buffer(room)
    size = codec.LZ4_compress_default(data, to, len(data), room)
    assert size > 0
    assert lz4_decode(to.raw[:size]) == data
    if len(data) == 100_000:
        assert size < 1000


@pytest.mark.parametrize("data", list(samples()), ids=len)
def test_zlib(codec, data):
    codec.compressBound.restype = ctypes.c_ulong
    room = ctypes.c_ulong(codec.compressBound(ctypes.c_ulong(len(data))))
    to = ctypes.create_string_buffer(room.value)
    assert codec.compress2(to, ctypes.byref(room), data, ctypes.c_ulong(len(data)), 9) == 0
    assert zlib.decompress(to.raw[: room.value]) == data
