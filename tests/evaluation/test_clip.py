import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imagen_jax.clip.config import model_name, read_towers
from imagen_jax.clip.folder import load_clip, parameter_shapes
from imagen_jax.clip.preprocess import Preprocessing, preprocess, read_preprocessing
from imagen_jax.clip.tokenizer import ClipTokenizer
from imagen_jax.errors import InputError
from imagen_jax.evaluation.clip.features import clip_features, embed_texts
from imagen_jax.evaluation.clip.score import FORMULAS, clip_score, score_name
from imagen_jax.evaluation.features import FeatureId
from tests.evaluation.clip_folders import CAPTIONS, PROJECTION_DIM, write_clip

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (11, 20, 30, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "tiny"
    write_clip(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(folder)


def edit_config(folder, tower=None, **values):
    config = json.loads((folder / "config.json").read_text())
    (config[tower] if tower else config).update(values)
    (folder / "config.json").write_text(json.dumps(config))


def edit_tensors(folder, change):
    tensors = dict(load_file(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


# Embeddings


def test_an_images_embedding_depends_on_no_other_image(clip):
    extractor = clip_features(clip, batch_size=8)
    found = np.concatenate([batch["image"] for batch in extractor(IMAGES)])
    assert found.shape == (11, PROJECTION_DIM) and found.dtype == np.float32
    order = RNG.permutation(11)
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch in extractor(IMAGES[order])]), found[order])
    assert np.linalg.matrix_rank(found) == 11


def test_a_captions_embedding_depends_on_no_other_caption_and_no_padding(clip):
    found = embed_texts(clip, CAPTIONS, batch_size=4)
    assert found.shape == (len(CAPTIONS), PROJECTION_DIM) and found.dtype == np.float32
    np.testing.assert_array_equal(embed_texts(clip, CAPTIONS[::-1], batch_size=4), found[::-1])
    ids = clip.tokenizer(CAPTIONS)
    after = np.cumsum(ids == clip.tokenizer.end_id, axis=1) > 1
    assert after.any()
    others = np.where(after, RNG.integers(0, clip.tokenizer.end_id, ids.shape), ids)
    np.testing.assert_allclose(
        clip.text.apply({"params": clip.text_params}, others),
        clip.text.apply({"params": clip.text_params}, ids),
        atol=1e-6,
    )
    assert np.linalg.matrix_rank(found) == PROJECTION_DIM


def test_a_prefix_is_part_of_every_caption(clip):
    prefix = FORMULAS["clipscore"].prefix
    expected = embed_texts(clip, [f"A photo depicts {caption}" for caption in CAPTIONS])
    np.testing.assert_array_equal(embed_texts(clip, CAPTIONS, prefix=prefix), expected)


def test_empty_captions_are_refused_with_a_prefix_too(clip):
    for prefix in ("", "A photo depicts "):
        with pytest.raises(InputError, match=r"caption 1 is empty \(' \\n'\)"):
            embed_texts(clip, ["red apple", " \n"], prefix=prefix)
    with pytest.raises(InputError, match="put it in a list"):
        embed_texts(clip, "red apple")


def test_embeddings_know_their_network_and_are_never_called_fid(clip):
    extractor = clip_features(clip)
    assert extractor.ids == {"image": FeatureId("clip", "image", clip.settings, clip.weights_sha256)}
    other = dataclasses.replace(clip, preprocessing=dataclasses.replace(clip.preprocessing, mean=(0.5, 0.5, 0.5)))
    activation = dataclasses.replace(clip, vision=clip.vision.clone(layer_norm_eps=0.5))
    assert len({clip.settings, other.settings, activation.settings}) == 3
    digits = clip.weights_sha256[:8]
    assert extractor.name.metric("cmmd") == f"cmmd_clip_vit_32x2_8_24_{digits}"
    assert extractor.name.metric("fd") == f"fd_clip_vit_32x2_8_24_{digits}"
    assert score_name(clip, "cosine") == f"clip_score_cosine_vit_32x2_8_24_{digits}"


# Tokens


def test_long_captions_keep_their_end_and_are_counted(clip, caplog):
    ids = clip.tokenizer(["red apples", "red apples " * 100])
    start, end = ids[0, 0], clip.tokenizer.end_id
    assert ids.shape == (2, 16) and ids.dtype == np.int32
    assert (ids[:, 0] == start).all() and (ids[1, 1:-1] < start).all() and ids[1, -1] == end
    assert (ids[0, 3:] == end).all() and (ids[0, 1:3] < start).all()
    assert "1 of 2 captions are longer than 16 tokens and were cut" in caplog.text


def test_words_are_words_whatever_their_case_and_spaces(clip):
    ids = clip.tokenizer(["two red apples", "  TWO Red\n\tapples "])
    np.testing.assert_array_equal(ids[0], ids[1])
    assert (ids[0] != clip.tokenizer.end_id).sum() == 1 + 3


def test_both_kinds_of_tokenizer_files_are_the_same(copy):
    tokenizer = ClipTokenizer(copy, 32)
    expected = tokenizer(CAPTIONS)
    tokenizer._tokenizer.save(str(copy / "tokenizer.json"))
    (copy / "vocab.json").unlink()
    np.testing.assert_array_equal(ClipTokenizer(copy, 32)(CAPTIONS), expected)


# Images


def test_a_constant_image_stays_constant_and_is_scaled():
    how = Preprocessing(12, mean=(0.5, 0.25, 0.0), std=(1.0, 0.5, 0.25))
    found = preprocess(np.full((1, 40, 30, 3), 255, np.uint8), how)
    np.testing.assert_allclose(found, np.broadcast_to([0.5, 1.5, 4.0], (1, 12, 12, 3)), atol=1e-6)


def test_the_centre_is_what_is_seen():
    how = Preprocessing(12)
    wide = RNG.integers(0, 256, (1, 12, 40, 3)).astype(np.uint8)
    expected = preprocess(wide[:, :, 14:26], how)
    np.testing.assert_array_equal(preprocess(wide, how), expected)
    np.testing.assert_array_equal(preprocess(wide.transpose(0, 2, 1, 3), how), np.transpose(expected, (0, 2, 1, 3)))


def test_an_old_file_of_numbers_and_none_are_openais_values(tmp_path):
    none = read_preprocessing(tmp_path, 224)
    (tmp_path / "preprocessor_config.json").write_text('{"size": 224, "crop_size": 224, "resample": 3}')
    assert read_preprocessing(tmp_path, 224) == none
    assert none.mean == (0.48145466, 0.4578275, 0.40821073) and none.std == (0.26862954, 0.26130258, 0.27577711)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"do_center_crop": False}, "do_center_crop False; expected True"),
        ({"resample": 2}, "resample 2; expected 3"),
        ({"rescale_factor": 1.0}, r"rescale_factor 1\.0; expected 0\.0039"),
        ({"crop_size": {"height": 20, "width": 24}}, "crop_size .*20.*; expected {'height': 24, 'width': 24}"),
        ({"size": {"height": 24, "width": 24}}, "expected {'shortest_edge': 24}"),
        ({"size": 20}, "size 20; expected {'shortest_edge': 24}"),
        ({"image_std": [1, 1]}, r"image_std \[1, 1\]; expected three"),
    ],
)
def test_images_that_want_something_else_are_refused(copy, values, message):
    (copy / "preprocessor_config.json").write_text(json.dumps({"size": 24, "crop_size": 24} | values))
    with pytest.raises(InputError, match=message):
        load_clip(copy)


# Files


def test_several_files_and_older_ones_are_the_same_clip(clip, copy):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    del tensors["logit_scale"]
    tensors["vision_model.embeddings.position_ids"] = np.arange(10)[None]
    parts = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, copy / file)
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = load_clip(copy)
    assert loaded.weights_sha256 == clip.weights_sha256
    jax.tree.map(np.testing.assert_array_equal, loaded.vision_params, clip.vision_params)
    jax.tree.map(np.testing.assert_array_equal, loaded.text_params, clip.text_params)


def test_half_precision_is_read_as_float32(clip, copy):
    edit_tensors(copy, lambda tensors: tensors.update({key: x.astype(np.float16) for key, x in tensors.items()}))
    loaded = load_clip(copy)
    assert {x.dtype for x in jax.tree.leaves((loaded.vision_params, loaded.text_params))} == {np.dtype(np.float32)}
    assert loaded.weights_sha256 != clip.weights_sha256


def test_what_a_config_leaves_out_is_as_in_transformers(tmp_path):
    config = {"model_type": "clip", "vision_config": {}, "text_config": {"vocab_size": 5}}
    (tmp_path / "config.json").write_text(json.dumps(config | {"text_config_dict": None}))
    vision, text = read_towers(tmp_path)
    assert model_name(vision) == "vit_b32_224"
    assert (text.vocab_size, text.hidden_size, text.eos_token_id, text.projection_dim) == (5, 512, 49407, 512)
    # Where there are both, this one counts, and all of it.
    (tmp_path / "config.json").write_text(json.dumps(config | {"text_config_dict": {"hidden_size": 768}}))
    assert read_towers(tmp_path)[1].hidden_size == 768 and read_towers(tmp_path)[1].vocab_size == 49408


def test_vit_l14_336_has_the_published_number_of_parameters(tmp_path):
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "eos_token_id": 2}
    vision |= {"image_size": 336, "patch_size": 14}
    config = {"model_type": "clip", "projection_dim": 768, "vision_config": vision, "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(config))
    towers = read_towers(tmp_path)
    assert model_name(towers[0]) == "vit_l14_336"
    # 427.9M, with the one that scales training's logits.
    assert sum(int(np.prod(shape)) for shape in parameter_shapes(*towers).values()) + 1 == 427_944_193


def lose(name):
    return lambda folder: (folder / name).unlink()


def leave_a_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def drop_a_tensor(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("visual_projection.weight"))


def add_a_tensor(folder):
    edit_tensors(folder, lambda tensors: tensors.update({"vision_model.encoder.layers.2.mlp.fc1.bias": np.ones(3)}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose("config.json"), r"config\.json\" is missing; expected a CLIP's folder: config\.json, model\.safetensors"),
        (lose("model.safetensors"), r"has no weights; expected model\.safetensors, or"),
        (lose("merges.txt"), r"has no tokenizer: expected tokenizer\.json, or vocab\.json and merges\.txt"),
        (leave_a_pickle, r"as a pickle \(pytorch_model\.bin\).* python -c .*CLIPModel"),
        (drop_a_tensor, r"do not fit config\.json: missing visual_projection\.weight; they belong to different models"),
        (add_a_tensor, r"unknown vision_model\.encoder\.layers\.2\.mlp\.fc1\.bias;"),
        (
            lambda folder: edit_config(folder, "vision_config", image_size=32),
            r"vision_model\.embeddings\.position_embedding\.weight is \[10, 32\], and by config\.json \[17, 32\]",
        ),
        (lambda folder: edit_config(folder, model_type="siglip"), "model_type 'siglip'; expected \"clip\""),
        (lambda folder: edit_config(folder, "text_config", hidden_act="relu"), 'hidden_act .* "relu".* gelu, quick'),
        (lambda folder: edit_config(folder, "text_config", hidden_size="a"), "hidden_size 'a'; expected a number"),
        (lambda folder: edit_config(folder, "text_config", num_attention_heads=5), "num_attention_heads 5 do not divi"),
        (lambda folder: edit_config(folder, "vision_config", num_channels=1), "num_channels 1; expected 3"),
        (lambda folder: edit_config(folder, vision_config=None), "vision_config None; expected an object"),
        (lambda folder: edit_config(folder, "text_config", eos_token_id=7), "the eos_token_id 7; the files belong to"),
        (lambda folder: edit_config(folder, "text_config", vocab_size=300), "a vocab_size of 300"),
        (lambda folder: (folder / "vocab.json").write_text("{"), r"vocab\.json\" is no readable tokenizer"),
        (lambda folder: (folder / "vocab.json").write_text("{}"), r"vocab\.json\" .*tokenizer"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_line(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message) as refused:
        load_clip(copy)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_not_there_says_what_belongs_in_it(tmp_path):
    with pytest.raises(InputError, match=r"no CLIP folder .*expected config\.json, model\.safetensors"):
        load_clip(tmp_path / "absent")


# Scores


def test_the_formulas_are_those_of_their_sources():
    images = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, -2.0]], np.float32)
    texts = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.5]], np.float32)
    for formula, expected in (
        ("cosine", [1.0, 0.6, -1.0]),
        ("100max", [100.0, 60.0, 0.0]),
        ("clipscore", [2.5, 1.5, 0.0]),
    ):
        found = clip_score(images, texts, formula)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        assert found.dtype == np.float64
    assert {name: formula.prefix for name, formula in FORMULAS.items() if formula.prefix} == {
        "clipscore": "A photo depicts "
    }


def test_an_unknown_formula_lists_the_choices(clip):
    for call in (lambda: score_name(clip, "cos"), lambda: clip_score(np.ones((1, 2)), np.ones((1, 2)), "cos")):
        with pytest.raises(InputError, match="choose from: 100max, clipscore, cosine"):
            call()
