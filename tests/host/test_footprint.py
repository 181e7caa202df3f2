"""The image's size from shapes alone, against compiled images."""

from __future__ import annotations

import pytest

from terntable.host.checkpoints.survey import survey
from terntable.host.compiler import compile_model
from terntable.host.fit import derive_config
from terntable.host.footprint import region_bytes
from terntable.host.model import random_model
from terntable.hw.config import load_config
from terntable.hw.errors import UserError
from terntable.hw.isa import KvFormat


@pytest.mark.parametrize("name", ["test", "tiny", "derived"])
@pytest.mark.parametrize(
    ("changes", "shards"),
    [
        ({}, 1),
        ({"vocab": 1003, "tied": False, "attn_sub_norm": False, "ffn_sub_norm": False}, 1),
        ({"head_dim": 10, "hidden": 40, "ffn": 44, "heads": 4, "kv_heads": 2, "context": 33}, 2),
        ({"ffn_sub_norm": False, "heads": 4, "kv_heads": 4, "hidden": 32, "ffn": 64}, 4),
    ],
)
def test_regions_are_those_of_the_compiled_image(
    make_spec, name: str, changes: dict, shards: int
) -> None:
    spec = make_spec(**changes)
    config = derive_config(spec) if name == "derived" else load_config(name)
    model = random_model(spec, 1, shards)
    for kv in KvFormat:
        image = compile_model(model, config, kv=kv)
        outlines = survey(model).outlines
        got = region_bytes(spec, outlines, model.final_gain, config, image.context, kv)
        assert got == {r.name: r.size for r in image.regions.values()}
        assert sum(got.values()) == image.size


def test_a_model_that_does_not_fit_is_refused(make_spec) -> None:
    model = random_model(make_spec(hidden=128))
    outlines = survey(model).outlines
    with pytest.raises(UserError, match="max_hidden"):
        region_bytes(model.spec, outlines, model.final_gain, load_config("test"), 32)


def test_a_vocabulary_of_too_many_tiles_is_refused(make_spec) -> None:
    # A LINEAR counts its tiles in 16 bits.
    config = load_config("test").model_copy(update={"tile_rows": 2})
    compile_model(random_model(make_spec(vocab=2 * 65535 // 5)), config)
    with pytest.raises(UserError, match="vocabulary of 26215 takes 65538 tiles"):
        compile_model(random_model(make_spec(vocab=26_215)), config)
