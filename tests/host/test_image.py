"""Images: map, checks, files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from terntable.host.compiler import compile_model
from terntable.host.image import ALIGNMENT, RUNTIME_REGIONS, Image
from terntable.host.model import ModelSpec, random_model
from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.hw.isa import KvFormat


@pytest.fixture
def image(make_spec: Callable[..., ModelSpec]) -> Image:
    return compile_model(random_model(make_spec()), load_config("test"), kv=KvFormat.INT8)


def test_regions_are_aligned_and_do_not_overlap(image: Image) -> None:
    at = 0
    for region in image.regions.values():
        assert region.offset % ALIGNMENT == 0 and region.offset >= at
        assert (region.crc32 is None) == (region.name in RUNTIME_REGIONS)
        at = region.end
    assert image.size >= at and image.data.size == image.write_base
    assert [r.name for r in image.regions.values()][-3:] == list(RUNTIME_REGIONS)


def test_description_names_every_region(image: Image) -> None:
    text = image.describe()
    assert all(name in text for name in image.regions)
    assert "bits per ternary weight" in text and "K and V in int8" in text


def test_file_round_trip(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "model.image"
    image.save(path)
    image.save(path)  # over an existing file
    back = Image.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.image"]
    assert np.array_equal(back.data, image.data)
    assert np.array_equal(back.embedding, image.embedding)
    assert (back.config, back.spec, back.regions) == (image.config, image.spec, image.regions)
    assert (back.context, back.head_error) == (image.context, image.head_error)
    assert back.kv is image.kv is KvFormat.INT8


@pytest.mark.parametrize(
    "name", ["header", "program", "rope", "gains", "head_scales", "weights", "head"]
)
def test_damage_in_a_constant_region_is_found(image: Image, name: str) -> None:
    image.data[image.regions[name].offset + 5] ^= 1
    with pytest.raises(UserError, match=f"region '{name}' is damaged"):
        image.check()


def test_damaged_files_are_refused(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "model.image"
    image.save(path)
    good = path.read_bytes()
    for data, message in (
        (good[:-1], "cut short"),
        (good[:40], "cut short"),
        (good[:10], "not an image file"),
        (b"x" + good[1:], "not an image file"),
        (good[:30] + bytes([good[30] ^ 1]) + good[31:], "damaged"),
        (good[:8] + bytes([99]) + good[9:], "version 99"),
        (good[:-3] + bytes([good[-3] ^ 64]) + good[-2:], "embedding is damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            Image.load(path)
    at = len(good) - image.embedding.nbytes - image.data.size + image.regions["weights"].offset
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    with pytest.raises(UserError, match="'weights' is damaged"):
        Image.load(path)
    with pytest.raises(UserError, match="no image file"):
        Image.load(tmp_path / "none")


def test_tokens_outside_the_vocabulary(image: Image) -> None:
    assert image.embed([0, image.spec.vocab - 1]).shape == (2, image.input_width)
    for token in (-1, image.spec.vocab):
        with pytest.raises(UserError, match=f"token {token} is not in the vocabulary"):
            image.embed([token])
