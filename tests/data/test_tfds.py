"""Data sets of tensorflow-datasets by name, without TensorFlow."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from imagen_jax.data.sources import open_source
from imagen_jax.errors import InputError


def png(value: int) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(file, "PNG")
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    """Holds "tiny_captions", shaped like coco_captions, and "tiny_tfrecord", in the wrong format."""
    import tensorflow_datasets as tfds

    class TinyCaptions(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            captions = tfds.features.Sequence({"text": np.str_, "id": np.int64})
            features = {"image": tfds.features.Image(), "captions": captions, "title": tfds.features.Text()}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "test": self._generate_examples(1)}

        def _generate_examples(self, count):
            for i in range(count):
                captions = [{"text": f"first of {i}", "id": 1}, {"text": f"second of {i}", "id": 2}]
                yield i, {"image": png(i), "captions": captions if i != 3 else [], "title": f"title {i}"}

    tfds.disable_progress_bar()
    path = str(tmp_path_factory.mktemp("data"))
    TinyCaptions(data_dir=path, file_format="array_record").download_and_prepare()
    return path


def test_the_first_of_several_captions_is_taken_and_a_record_without_one_left_out(data_dir):
    source = open_source("tfds/tiny_captions:train", data_dir=data_dir)
    assert sorted(source.captions()) == [f"first of {i}" for i in (0, 1, 2, 4, 5)] and len(source) == 5
    for i, caption in enumerate(source.captions()):
        record = source[i]
        assert record["caption"] == caption and record["image"].shape == (4, 5, 3)
        assert record["image"][0, 0, 0] == int(caption[-1])


def test_the_split_defaults_to_train_and_may_be_any_of_tfds(data_dir):
    fingerprints = set()
    for spec, count in (("tfds/tiny_captions", 5), ("tfds/tiny_captions:test", 1)):
        source = open_source(spec, data_dir=data_dir)
        assert len(source) == count
        fingerprints.add(source.fingerprint)
    assert len(fingerprints) == 2
    assert len(open_source("tfds/tiny_captions:train[:2]", data_dir=data_dir)) == 2


def test_features_can_be_chosen(data_dir):
    source = open_source("tfds/tiny_captions:train?caption=title", data_dir=data_dir)
    assert sorted(source.captions()) == [f"title {i}" for i in range(6)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tfds", "names no data set; expected tfds/NAME"),
        ("tfds/nothing_here", 'no prepared data set "nothing_here".*--file_format=array_record'),
        ("tfds/tiny_captions:dev", 'no split "dev"; choose from: t'),
        ("tfds/tiny_captions?caption=headline", 'no caption feature "headline" among: .*title'),
        ("tfds/tiny_captions?kaption=title", "names no data set; expected tfds/NAME"),
    ],
)
def test_a_bad_spec_says_what_is_expected(data_dir, spec, message):
    with pytest.raises(InputError, match=message):
        open_source(spec, data_dir=data_dir)


def test_importing_the_data_modules_imports_no_framework():
    modules = "imagen_jax.data.pipeline, imagen_jax.data.sources.emoji, imagen_jax.data.preprocess"
    code = f"import sys, {modules}; print({{'tensorflow', 'torch', 'tensorflow_datasets'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
