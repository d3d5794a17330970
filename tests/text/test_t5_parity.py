"""Against transformers' T5 encoders, with random weights that it saved, and its tokenizer. Needs the extra `parity`."""

import importlib
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

from imagen_jax.errors import InputError
from imagen_jax.text.encoder import load_encoder
from imagen_jax.text.t5 import relative_position_bucket
from imagen_jax.text.tokenizer import EOS_ID, Tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
# What torch and transformers warn about is theirs.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

SIZES: dict[str, Any] = {"vocab_size": 512, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 4}
# Of published checkpoints: the class's prefix, its config, and whether the file has the decoder too.
FAMILIES = {
    "t5": ("T5", {"feed_forward_proj": "relu", "tie_word_embeddings": True}, True),
    "t5-v1_1": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, True),
    "flan-t5": ("T5", {"feed_forward_proj": "gated-gelu", "n_positions": 512}, False),
    "mt5": ("MT5", {}, True),
    "umt5": ("UMT5", {}, False),
    "ul2": ("T5", {"feed_forward_proj": "gated-silu"}, False),
}
STYLES = (
    *("a photo of", "Two", "an OIL painting,", "  several", "l\u2019image d\u2019"),
    *("\u4e00\u5f20\u7167\u7247", "N\u00ba 7:"),
)
# No "5,000": where two readings of a run are equally likely ("0", "00" or "00", "0"), SentencePiece, which T5 was
# trained with and which ours is, and transformers' port of it choose differently. T5's own vocabulary has "000".
THINGS = (
    *("cats", "a red\tapple", "\U0001f34e emoji", "x" * 30, "na\u00efve \ufb01nches"),
    *("5,210 bees!?", "<b>words</b>", "\u82f9\u679c \u7ea2"),
)
PLACES = ("", " in the rain ", " on Mars...", " (1887)", "\nat night", " \u2014 4K, HDR", " <s> and on")


def captions(count: int) -> list[str]:
    every = [f"{style} {thing}{place}" for place in PLACES for thing in THINGS for style in STYLES]
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(every, rng.integers(2, 5))) for _ in range(count)]


def write_vocabulary(folder: Path) -> None:
    """A vocabulary with T5's own normalisation and special ids, and its hundred sentinels."""
    special: Any = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(captions(300)),
        model_prefix=str(folder / "spiece"),
        vocab_size=300,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        **special,
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')


def save_reference(folder: Path, family: str, *, shard_size: str = "1GB", **save: Any) -> Any:
    """Random weights of `family`, saved by transformers; returns its encoder in float32."""
    prefix, config, with_decoder = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**SIZES, **config)
    kind = "ForConditionalGeneration" if with_decoder else "EncoderModel"
    model = getattr(transformers, prefix + kind)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms away from their initial values
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, max_shard_size=shard_size, **save)
    write_vocabulary(folder)
    return model.get_encoder() if with_decoder else model


def compare(reference: Any, encoder: Any, max_length: int) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, SIZES["vocab_size"], (3, max_length)).astype(np.int32)
    mask = np.arange(max_length) < np.array([[max_length], [max(1, max_length // 2)], [1]])
    with torch.no_grad():
        expected = reference(
            input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()
    actual = np.asarray(encoder._apply({"params": encoder._params}, ids, mask))
    np.testing.assert_allclose(actual[mask], expected[mask], rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"], ids=["one file", "sharded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_equal_transformers(tmp_path, family, shard_size):
    reference = save_reference(tmp_path, family, shard_size=shard_size)
    assert (tmp_path / "model.safetensors").is_file() == (shard_size == "1GB")
    encoder = load_encoder(tmp_path)
    for max_length in (1, 40, 256) if shard_size == "1GB" else (40,):
        compare(reference, encoder, max_length)


def test_the_whole_way_from_captions_equals_transformers(tmp_path):
    reference = save_reference(tmp_path, "t5-v1_1")
    texts = captions(40)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        texts, padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = reference(**inputs).last_hidden_state.numpy()
    emb, mask = load_encoder(tmp_path, 64).encode(texts).values()
    np.testing.assert_array_equal(mask, inputs["attention_mask"].numpy().astype(bool))
    # Embeddings leave as bfloat16.
    np.testing.assert_allclose(emb[mask].astype(np.float32), expected[mask], rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("saved_as", ["float32", "bfloat16", "float16"])
def test_bfloat16_is_within_two_percent(tmp_path, saved_as):
    reference = save_reference(tmp_path, "t5-v1_1")
    if saved_as != "float32":
        half = transformers.T5EncoderModel.from_pretrained(tmp_path, dtype=getattr(torch, saved_as))
        half.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, dtype=jnp.bfloat16)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, SIZES["vocab_size"], (8, 32)).astype(np.int32)
    with torch.no_grad():
        expected = reference(input_ids=torch.from_numpy(ids).long()).last_hidden_state.numpy()
    actual = encoder._apply({"params": encoder._params}, ids, np.ones_like(ids, bool))
    error = np.linalg.norm(np.asarray(actual, np.float32) - expected) / np.linalg.norm(expected)
    assert error < 0.02, error
    print(f"bfloat16, saved as {saved_as}: {error:.4f}")


def test_token_ids_equal_transformers(tmp_path):
    write_vocabulary(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    texts = captions(1000)
    assert len(set(texts)) > 950
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = reference(texts, padding="max_length", max_length=48, truncation=True, return_tensors="np")
    assert not expected["attention_mask"].all(axis=1).all()
    assert expected["attention_mask"].all(axis=1).any()
    ids, mask = Tokenizer(tmp_path, 48)(texts)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, expected["attention_mask"])
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    for row, text in enumerate(texts):
        assert ids[row][mask[row]].tolist() == [*pieces.encode(text)[:47], EOS_ID]
    # The other file that a folder may have.
    other = tmp_path / "fast"
    reference.save_pretrained(other)
    assert not (other / "spiece.model").exists()
    np.testing.assert_array_equal(Tokenizer(other, 48)(texts)[0], ids)


def test_a_pickle_is_refused_and_the_command_of_the_message_converts_it(tmp_path):
    from safetensors.torch import load_file

    folder = tmp_path / "o'hara's t5"
    reference = save_reference(folder, "t5-v1_1")  # decoder included, as published
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"as a pickle .*convert it once") as refused:
        load_encoder(folder)
    _, option, program = shlex.split(str(refused.value).rsplit("are installed: ", 1)[1])
    # torchvision is there for the references of FID; PyPI's build of it, which transformers would import, can't be
    # loaded beside a PyTorch for CPUs.
    hidden = "import sys; sys.modules['torchvision'] = None; "
    subprocess.run([sys.executable, option, hidden + program], check=True, capture_output=True)
    compare(reference, load_encoder(folder), 40)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 64), (64, 512)])
def test_buckets_equal_torch(num_buckets, max_distance):
    relative = np.arange(-1100, 1101)
    attention = importlib.import_module("transformers.models.t5.modeling_t5").T5Attention
    expected = attention._relative_position_bucket(
        torch.from_numpy(relative), num_buckets=num_buckets, max_distance=max_distance
    )
    actual = relative_position_bucket(relative, num_buckets=num_buckets, max_distance=max_distance)
    np.testing.assert_array_equal(actual, expected.numpy())
