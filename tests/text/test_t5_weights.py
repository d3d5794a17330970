import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imagen_jax.errors import InputError
from imagen_jax.text.encoder import encoder_files, identify_encoder, load_encoder
from imagen_jax.text.placement import fewest_shards
from imagen_jax.text.t5_config import describe_width
from imagen_jax.text.tokenizer import train_vocabulary
from tests.text.published import CAPTIONS, write_encoder, write_tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("encoders") / "t5-v1_1-tiny"
    write_encoder(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def edit_tensors(folder, change):
    tensors = dict(load_file(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


FAMILIES = {
    "t5": {"feed_forward_proj": "relu"},
    "t5 of an old config": {"feed_forward_proj": None},
    "v1.1": {},
    "mt5": {"model_type": "mt5", "feed_forward_proj": None},
    "umt5": {"model_type": "umt5"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_read_to_its_place(tmp_path, family):
    params = dict(write_encoder(tmp_path, **FAMILIES[family]))
    loaded = load_encoder(tmp_path)._params
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    gated = family not in ("t5", "t5 of an old config")
    assert set(params["block_0_ff"]) == ({"wi_0", "wi_1", "wo"} if gated else {"wi", "wo"})
    assert ("block_1_relative_attention_bias" in params) == (family == "umt5")


def test_one_file_and_several_with_a_decoder_or_without_are_the_same_encoder(folder, tmp_path):
    params = write_encoder(tmp_path / "split", num_files=3)
    write_encoder(tmp_path / "whole", decoder=True)
    one = load_encoder(folder)
    for name in ("split", "whole"):
        other = load_encoder(tmp_path / name)
        jax.tree.map(np.testing.assert_array_equal, other._params, dict(params))
        assert other.fingerprint == one.fingerprint
    assert one.name == "t5-v1_1-tiny (t5, width 32, 2 layers)"
    assert identify_encoder(folder) == (one.name, one.fingerprint)


def test_weights_tokenizer_and_architecture_each_decide_the_fingerprint(folder, copy, tmp_path):
    _, before = identify_encoder(copy)
    assert before == identify_encoder(folder)[1]

    def nudge(tensors):
        kernel = tensors["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
        tensors["encoder.block.1.layer.1.DenseReluDense.wo.weight"] = kernel + np.float32(1e-6)

    edit_tensors(copy, nudge)
    assert identify_encoder(copy)[1] != before
    write_encoder(tmp_path, relative_attention_max_distance=64)
    assert identify_encoder(tmp_path)[1] != before
    write_encoder(tmp_path)
    assert identify_encoder(tmp_path)[1] == before
    (tmp_path / "tokenizer_config.json").write_text("of transformers; nothing here reads it")
    assert identify_encoder(tmp_path)[1] == before
    (tmp_path / "spiece.model").write_bytes(train_vocabulary([*CAPTIONS, "yellow"], vocab_size=150))
    assert identify_encoder(tmp_path)[1] != before


def test_bfloat16_keeps_norms_and_position_biases_in_float32(folder):
    params = load_encoder(folder, dtype=jnp.bfloat16)._params
    assert params["shared"]["embedding"].dtype == params["block_0_ff"]["wo"]["kernel"].dtype == jnp.bfloat16
    assert params["final_norm"]["scale"].dtype == params["relative_attention_bias"]["embedding"].dtype == jnp.float32


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files_are_read_as_they_are(folder, copy, kind):
    edit_tensors(copy, lambda tensors: tensors.update({key: value.astype(kind) for key, value in tensors.items()}))
    loaded, exact = load_encoder(copy)._params, load_encoder(folder)._params
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.asarray(b).astype(kind)), loaded, exact)


@pytest.mark.parametrize(("shards", "count"), [(4, 4), (2, 8)])
def test_an_encoder_over_several_devices_gives_the_same(folder, shards, count):
    alone = load_encoder(folder, 24, batch_size=4).embed(CAPTIONS)
    spread = load_encoder(folder, 24, batch_size=4, devices=jax.devices()[:count], shards=shards)
    kernel = spread._params["block_0_ff"]["wi_0"]["kernel"]
    assert len(kernel.addressable_shards) == count
    assert kernel.addressable_shards[0].data.shape == (32, 48 // shards)
    for mine, other in zip(alone.tokens, spread.embed(CAPTIONS).tokens, strict=True):
        # Sums over devices are in another order; then rounded to bfloat16.
        np.testing.assert_allclose(other.astype(np.float32), mine.astype(np.float32), rtol=2**-7, atol=1e-5)


def test_an_encoder_may_lie_on_another_device(folder):
    encoder = load_encoder(folder, 24, batch_size=4, devices=jax.devices()[5:6])
    assert encoder._params["final_norm"]["scale"].devices() == {jax.devices()[5]}
    for mine, other in zip(
        load_encoder(folder, 24).embed(CAPTIONS).tokens, encoder.embed(CAPTIONS).tokens, strict=True
    ):
        np.testing.assert_allclose(other.astype(np.float32), mine.astype(np.float32), rtol=2**-7, atol=1e-5)


@dataclasses.dataclass
class Chip:
    """A device that says how much memory it has."""

    limit: float

    def memory_stats(self):
        return {"bytes_limit": self.limit, "bytes_in_use": 0}


@pytest.mark.parametrize(("gigabytes", "shards"), [(8, 1), (14, 2), (26, 4), (50, 4)])
def test_as_few_chips_share_a_copy_as_hold_it(gigabytes, shards):
    assert fewest_shards([Chip(16e9)] * 4, int(gigabytes * 1e9), divides=64) == shards


def test_devices_that_can_not_hold_or_divide_it_are_refused(folder):
    with pytest.raises(InputError, match=r"60.0 GB, and 4 device\(s\) have 12.8 GB free each.*--encoder_devices=cpu"):
        fewest_shards([Chip(16e9)] * 4, int(60e9), divides=64)
    # By their memory three would do, but three don't divide the heads.
    assert fewest_shards([Chip(16e9)] * 12, int(30e9), divides=64) == 4
    for shards in (3, 8):
        with pytest.raises(InputError, match=rf"shards = {shards}; expected a divisor of .*: 1, 2, 4$"):
            load_encoder(folder, shards=shards)
    for devices in ([], jax.devices()[:1] * 2):
        with pytest.raises(InputError, match="expected at least one, and each once"):
            load_encoder(folder, devices=devices)
    with pytest.raises(InputError, match="batch size must be a whole number, at least 1"):
        load_encoder(folder, batch_size=0)


def drop_a_tensor(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("encoder.block.1.layer.0.SelfAttention.k.weight"))


def add_a_tensor(folder):
    edit_tensors(folder, lambda tensors: tensors.update({"encoder.block.2.layer.0.layer_norm.weight": np.ones(32)}))


def widen_a_tensor(folder):
    edit_tensors(folder, lambda tensors: tensors.update({"shared.weight": np.zeros((300, 64), np.float32)}))


def quantise(folder):
    edit_tensors(folder, lambda tensors: tensors.update({"shared.weight": np.zeros((300, 32), np.int8)}))


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def garble(folder):
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html>" * 100)


def remove(folder):
    (folder / "model.safetensors").unlink()


def leave_a_pickle(folder):
    remove(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")


def name_another_variant(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")


def lose_the_tokenizer(folder):
    (folder / "spiece.model").unlink()


def lose_a_part(folder):
    tensors = load_file(folder / "model.safetensors")
    remove(folder)
    write_tensors(folder, dict(tensors), num_files=2)
    (folder / "model-00002-of-00002.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_a_tensor, r"do not fit config.json: missing encoder\.block\.1\.layer\.0\.SelfAttention\.k\.weight;"),
        (add_a_tensor, r"unknown encoder\.block\.2\.layer\.0\.layer_norm\.weight;"),
        (widen_a_tensor, r"shared\.weight is \[300, 64\], and by config\.json \[300, 32\]"),
        (quantise, r"shared\.weight is I8; expected F32, F16, BF16"),
        (truncate, r"model\.safetensors\" is truncated or damaged .*fetch it again"),
        (garble, r"model\.safetensors\" is truncated or damaged"),
        (remove, r"has no weights; expected model\.safetensors, or model\.safetensors\.index\.json and"),
        (leave_a_pickle, r"as a pickle \(pytorch_model\.bin\).* python -c "),
        (name_another_variant, r"there is model\.fp16\.safetensors: give it that name"),
        (lose_the_tokenizer, r"has no tokenizer: expected spiece\.model or tokenizer\.json"),
        (lose_a_part, r"lacks model-00002-of-00002\.safetensors, which model\.safetensors\.index\.json names"),
    ],
)
def test_what_is_wrong_with_the_weights_is_one_line(copy, damage, message):
    damage(copy)
    for load in (load_encoder, identify_encoder):
        with pytest.raises(InputError, match=message) as refused:
            load(copy)
        assert "\n" not in str(refused.value)


def test_an_encoder_is_its_config_tokenizer_and_weights(folder, copy):
    (copy / "pytorch_model.bin").write_bytes(b"44 GB")
    (copy / "README.md").write_text("of the hub")
    names = [path.name for path in encoder_files(copy)]
    assert names == ["config.json", "spiece.model", "model.safetensors"]


def test_parts_with_the_decoder_alone_need_not_be_there(folder, tmp_path):
    write_encoder(tmp_path, num_files=2, decoder=True)
    index = tmp_path / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    names = {
        key: "absent.safetensors" if key.startswith(("decoder", "lm_head")) else file for key, file in names.items()
    }
    index.write_text(json.dumps({"weight_map": names}))
    assert load_encoder(tmp_path).fingerprint == load_encoder(folder).fingerprint
    assert "absent.safetensors" not in {path.name for path in encoder_files(tmp_path)}


def test_token_embeddings_may_have_their_other_name(folder, copy):
    edit_tensors(copy, lambda tensors: tensors.update({"encoder.embed_tokens.weight": tensors.pop("shared.weight")}))
    assert load_encoder(copy).fingerprint == load_encoder(folder).fingerprint


def test_float32_is_float32_on_accelerators_too(folder):
    ids, mask = np.ones((1, 16), np.int32), np.ones((1, 16), bool)
    for dtype, precision in ((jnp.float32, "HIGHEST"), (jnp.bfloat16, "DEFAULT")):
        encoder = load_encoder(folder, dtype=dtype)
        lowered = encoder._apply.lower({"params": encoder._params}, ids, mask).as_text()
        used = re.findall(r"precision = \[(\w+), (\w+)\]", lowered)
        assert len(used) == 2 * 9  # q, k, v, logits, values, o; wi_0, wi_1, wo
        assert set(used) == {(precision, precision)}


def test_a_width_names_the_encoders_that_have_it():
    assert describe_width(4096) == "width 4096 (as of t5-v1_1-xxl, flan-t5-xxl, mt5-xxl, umt5-xxl, ul2, flan-ul2)"
    assert describe_width(1000) == "width 1000 (of no published T5)"
