"""Against transformers' CLIPModel, CLIPTokenizer and CLIPImageProcessor. Needs the extra `parity`."""

import importlib
import shlex
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from imagen_jax.clip.config import read_towers
from imagen_jax.clip.folder import load_clip, parameter_shapes, transformers_name
from imagen_jax.clip.preprocess import preprocess, read_preprocessing
from imagen_jax.clip.tokenizer import ClipTokenizer
from imagen_jax.errors import InputError
from imagen_jax.evaluation.clip.features import clip_features, embed_texts
from tests.evaluation.clip_folders import CAPTIONS, config_of, write_vocabulary
from tests.evaluation.references import make_torchvision_importable

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
make_torchvision_importable()  # which transformers does with what it finds
# What torch and transformers warn about is theirs.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

# Of the largest number in the reference's embeddings.
TOLERANCE = 1e-5
DIFFICULT = [
    *CAPTIONS,
    *("", "a", "  two   spaces\tand\na line ", "DON'T, we'll they've I'm he'd it's", "o'clock 'stop' 's"),
    *(
        "l\u2019image d\u2019un na\u00efve caf\u00e9, cafe\u0301",
        "\u82f9\u679c \u7ea2 apples",
        "\U0001f34e\U0001f34f!!",
    ),
    *(
        "1234567 N\u00ba 7: 5,210 bees!?",
        "4K -- HDR... (photo) [x] {y} #1 @you a_b",
        "\ufb01nches \u0130STANBUL \u00df",
    ),
    *("\u200bzero width\u00a0space\u3000", "\u0e20\u0e32\u0e1e \u05e9\u05dc\u05d5\u05dd \u0939\u093f", "x" * 500),
    *("red apples " * 40, "a red <|endoftext|> and on", "<|startoftext|> <b>html</b> &amp; &lt;"),
]


def save_reference(folder, hidden_act="quick_gelu", eos_token_id=None, **save) -> Any:
    """Random weights, saved by transformers."""
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder)
    torch.manual_seed(0)
    config = transformers.CLIPConfig(**config_of(folder, hidden_act=hidden_act, eos_token_id=eos_token_id))
    model = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from initial values, which make every caption's embedding alike
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, **save)
    return model


def image_processor(**settings) -> Any:
    module = importlib.import_module("transformers.models.clip.image_processing_pil_clip")
    return module.CLIPImageProcessorPil(**settings)


def photos(count, height, width, *, seed):
    """Blobs of colour with noise: low frequencies, edges of the range, and what antialiasing would remove."""
    rng = np.random.default_rng(seed)
    blobs = np.kron(rng.uniform(-60, 315, (count, 4, 4, 3)), np.ones((1, -(-height // 4), -(-width // 4), 1)))
    return np.clip(blobs[:, :height, :width] + rng.normal(0, 30, (count, height, width, 3)), 0, 255).astype(np.uint8)


def error(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def pooled(output):
    # Since transformers 5 the embedding is one part of what is returned.
    return getattr(output, "pooler_output", output).detach().numpy()


@pytest.mark.parametrize("eos_token_id", [None, 2], ids=["first end", "largest id"])
@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_embeddings_equal_transformers(tmp_path, hidden_act, eos_token_id):
    reference = save_reference(tmp_path, hidden_act, eos_token_id)
    assert reference.config.text_config.eos_token_id == (eos_token_id or load_clip(tmp_path).tokenizer.end_id)
    clip = load_clip(tmp_path)
    images = photos(3, 40, 30, seed=0)
    settings = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    pixels = image_processor(**settings)([Image.fromarray(image) for image in images], return_tensors="pt")
    (found,) = clip_features(clip, batch_size=8)(images)
    expected = pooled(reference.get_image_features(**pixels))
    image_error = error(found["image"], expected)

    inputs = transformers.CLIPTokenizer.from_pretrained(tmp_path)(
        DIFFICULT[:-2], padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    expected = pooled(reference.get_text_features(**inputs))
    kept = [i for i, caption in enumerate(DIFFICULT[:-2]) if caption]
    found = embed_texts(clip, [DIFFICULT[i] for i in kept], batch_size=16)
    text_error = error(found, expected[kept])
    assert max(image_error, text_error) < TOLERANCE


def test_both_rules_of_the_end_take_the_first_of_several(tmp_path):
    reference = save_reference(tmp_path, eos_token_id=2)
    clip = load_clip(tmp_path)
    largest, other = clip.tokenizer.end_id, 100
    ids = np.random.default_rng(0).integers(200, largest - 1, (3, 16)).astype(np.int32)
    ids[[0, 1, 1, 2], [15, 3, 9, 1]] = largest
    ids[[0, 0, 1, 2], [2, 7, 12, 15]] = other
    found = {}
    for eos_token_id in (2, other):
        reference.text_model.eos_token_id = eos_token_id
        found[eos_token_id] = clip.text.clone(eos_token_id=eos_token_id).apply({"params": clip.text_params}, ids)
        expected = pooled(reference.get_text_features(torch.from_numpy(ids).long()))
        assert error(found[eos_token_id], expected) < TOLERANCE
    assert error(found[2], found[other]) > 0.1


def test_files_in_parts_are_read(tmp_path):
    reference = save_reference(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    clip = load_clip(tmp_path)
    ids = clip.tokenizer(CAPTIONS)
    expected = pooled(reference.get_text_features(torch.from_numpy(ids).long()))
    assert error(embed_texts(clip, CAPTIONS), expected) < TOLERANCE
    reference.save_pretrained(tmp_path)
    assert load_clip(tmp_path).weights_sha256 == clip.weights_sha256


def test_tokens_equal_transformers(tmp_path):
    write_vocabulary(tmp_path)
    reference = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    expected = reference(DIFFICULT, padding="max_length", max_length=77, truncation=True, return_tensors="np")
    tokenizer = ClipTokenizer(tmp_path, 77)
    np.testing.assert_array_equal(tokenizer(DIFFICULT), expected["input_ids"])
    assert len(reference) == tokenizer.vocab_size
    # The other file that a folder may have.
    other = tmp_path / "fast"
    reference.save_pretrained(other)
    assert not (other / "merges.txt").exists()
    np.testing.assert_array_equal(ClipTokenizer(other, 77)(DIFFICULT), expected["input_ids"])


# None more than twice as tall as wide: see `preprocess`.
@pytest.mark.parametrize("size", [(24, 24), (10, 10), (64, 64), (17, 40), (300, 151), (90, 61), (37, 200), (24, 100)])
def test_images_are_prepared_as_transformers_does(tmp_path, size):
    processor = image_processor(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_mean=[0.5, 0.25, 0.125]
    )
    processor.save_pretrained(tmp_path)
    how = read_preprocessing(tmp_path, 24)
    assert how.mean == (0.5, 0.25, 0.125)
    images = photos(2, *size, seed=1)
    found = np.asarray(jax.jit(lambda images: preprocess(images, how))(images))
    expected = np.stack(processor([Image.fromarray(image) for image in images])["pixel_values"]).transpose(0, 2, 3, 1)
    # A step of 1 in 0..255 is 0.014.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_without_a_file_images_are_prepared_as_openai_does(tmp_path):
    images = photos(1, 300, 260, seed=2)
    found = np.asarray(preprocess(images, read_preprocessing(tmp_path, 224)))
    expected = image_processor()([Image.fromarray(images[0])])["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=2e-6)


# The sizes of openai/clip-vit-large-patch14-336, as its config.json says them.
LARGE = {
    "model_type": "clip",
    "projection_dim": 768,
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}


def test_vit_l14_336_has_transformers_tensors(tmp_path):
    transformers.CLIPConfig(**LARGE).save_pretrained(tmp_path)
    with torch.device("meta"):
        model = transformers.CLIPModel(transformers.CLIPConfig(**LARGE))
    expected = {name: sorted(parameter.shape) for name, parameter in model.named_parameters()}
    del expected["logit_scale"]
    shapes = parameter_shapes(*read_towers(tmp_path))
    # Sorted, since torch's kernels have their axes in another order.
    assert {transformers_name(path): sorted(shape) for path, shape in shapes.items()} == expected


def test_a_pickle_is_refused_and_the_command_of_the_message_converts_it(tmp_path):
    from safetensors.torch import load_file

    folder = tmp_path / "o'hara's clip"
    save_reference(folder)
    before = load_clip(folder)
    # Older files have these.
    positions = {"text_model.embeddings.position_ids": torch.arange(16)[None]}
    torch.save(load_file(folder / "model.safetensors") | positions, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"as a pickle .*convert it once") as refused:
        load_clip(folder)
    _, option, program = shlex.split(str(refused.value).rsplit("are installed: ", 1)[1])
    # torchvision is there for the references of FID; PyPI's build of it, which transformers would import, can't be
    # loaded beside a PyTorch for CPUs.
    hidden = "import sys; sys.modules['torchvision'] = None; "
    subprocess.run([sys.executable, option, hidden + program], check=True, capture_output=True)
    assert load_clip(folder).weights_sha256 == before.weights_sha256
