"""What is loaded is what was written, whole or not at all."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imagen_jax.errors import InputError, NotFiniteError, StorageError
from imagen_jax.sampling import export_folder, load_cascade
from imagen_jax.sampling.export_folder import check_can_write, write_cascade
from imagen_jax.sampling.folder import cascade_fingerprint, load_cascade_encoder, read_stage_config
from tests.sampling import tiny_cascade

FILES = ("stage_8/config.json", "stage_8/ema.safetensors", "stage_16/ema.safetensors")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return tiny_cascade.write(tmp_path_factory.mktemp("written"))


@pytest.fixture
def cascade(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "cascade")


def flip_a_bit(path: Path, place: int = -3) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [-3, 40])
def test_a_flipped_bit_is_one_error_at_loading(cascade, file, place):
    flip_a_bit(cascade / file, place)
    with pytest.raises(InputError, match=f"{file}.* is damaged, or was changed.*imagen_jax.export"):
        load_cascade(cascade, keep_encoder=False)


@pytest.mark.parametrize("file", ["config.json", "spiece.model", "words.txt"])
def test_a_flipped_bit_in_a_copied_encoder_is_one_error(cascade, file):
    flip_a_bit(cascade / "text_encoder" / file)
    with pytest.raises(InputError, match=f"text_encoder/{file}.* is damaged, or was changed"):
        load_cascade_encoder(cascade)


def test_weights_that_are_replaced_after_loading_are_not_sampled_from(cascade):
    loaded = load_cascade(cascade, keep_encoder=False)
    flip_a_bit(cascade / "stage_16" / "ema.safetensors")
    loaded.params(8)
    with pytest.raises(InputError, match=r"stage_16.* is damaged"):
        loaded.params(16)


def test_a_cascade_without_digests_is_read_with_one_warning(cascade, caplog):
    before = cascade_fingerprint(cascade)
    tiny_cascade.make_format_1(cascade)
    load_cascade(cascade, keep_encoder=False).params(16)
    (record,) = caplog.records
    assert "was written by an earlier version, without digests" in record.getMessage()
    assert cascade_fingerprint(cascade) == before


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"format_version": 3}, "of format 3; this version reads 1 and 2"),
        ({"format_version": True}, "of format True"),
        ({"format_version": 2}, "has no sha256 of its files"),
        ({"format_version": 2, "sha256": {}}, "has no sha256 of stage_8/config.json"),
        ({"format_version": 1, "stages": ["../written/stage_8"]}, "expected the name of a folder beside it"),
        ({"format_version": 1, "stages": ["text_encoder"]}, "expected the name of a folder beside it"),
        ({"format_version": 1, "stages": [3]}, "a stage is called 3"),
        ({"format_version": 1, "stages": ["stage_8", "stage_8"]}, "lists a stage twice"),
        ({"format_version": 1, "stages": []}, "lists no stages"),
        ({"format_version": 1, "stages": ["stage_64"]}, "stage_64/config.json.* is missing"),
    ],
)
def test_an_index_of_something_else_is_one_error(cascade, index, message):
    (cascade / "cascade.json").write_text(json.dumps({"stages": ["stage_8"]} | index))
    with pytest.raises(InputError, match=message):
        load_cascade(cascade, keep_encoder=False)


def rename(arrays: dict[str, Any]) -> None:
    arrays["conv_in/kernel_of_another"] = arrays.pop("conv_in/kernel")


def reshape(arrays: dict[str, Any]) -> None:
    arrays["conv_out/bias"] = np.zeros(4, np.float32)


def narrow(arrays: dict[str, Any]) -> None:
    arrays["conv_out/bias"] = np.zeros(3, np.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, r"2 of \d+ arrays differ \(conv_in/kernel: absent in the file, F32 \[3, 3, 3, 8\] by config.json; "),
        (reshape, r"1 of \d+ arrays differ \(conv_out/bias: F32 \[4\] in the file, F32 \[3\] by config.json\)"),
        (narrow, r"conv_out/bias: F16 \[3\] in the file"),
    ],
)
def test_weights_of_another_network_are_one_error_at_loading(cascade, change, message):
    path = cascade / "stage_8" / "ema.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    tiny_cascade.renew_digests(cascade)
    with pytest.raises(InputError, match=message) as error:
        load_cascade(cascade, keep_encoder=False)
    assert "\n" not in str(error.value)


def test_a_nan_in_the_weights_names_stage_and_parameter(cascade):
    path = cascade / "stage_16" / "ema.safetensors"
    arrays = load_file(path)
    arrays["conv_out/bias"][1] = np.nan
    save_file(arrays, path)
    tiny_cascade.renew_digests(cascade)
    loaded = load_cascade(cascade, keep_encoder=False)
    with pytest.raises(NotFiniteError, match=r"stage of 16 px: parameter conv_out/bias .* holds infinities or NaN"):
        loaded.params(16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": -4}, r"image_size must be a whole number in \[1, 16384\] \(got image_size = -4\)"),
        ({"image_size": "64"}, "image_size must be a whole number"),
        ({"image_size": 64.0}, "image_size must be a whole number"),
        ({"image_size": True}, "image_size must be a whole number"),
        ({"max_tokens": 10**9}, "max_tokens must be a whole number"),
        ({"text_width": 0}, "text_width must be"),
        ({"low_res_size": 8}, "low_res_size must be below image_size"),
        ({"max_aug_level": float("nan")}, r"max_aug_level must be in \[0, 1\]"),
        ({"name": "../x"}, "name must be of letters"),
        ({"encoder_name": 3}, "encoder_name must be a text"),
        ({"source_fingerprint": None}, "source_fingerprint must be a text"),
        ({"sampling": {"num_steps": 10**9}}, "num_steps must be a whole number from 1 to 10,000"),
        ({"sampling": {"unknown": 1}}, "unknown"),
        ({"sampling": []}, "sampling must be names with values"),
        ({"extra": 1}, "extra"),
        ({"model": {"name": "unet", "channels": 10**9}}, "model.channels must be of numbers up to 65,536"),
        ({"model": {"name": "unet", "channels": 60_000, "channel_mults": [1, 9]}}, "is above 65,536 channels"),
        ({"model": {"name": "unet", "num_blocks": 10**6}}, "model.num_blocks"),
        ({"model": {"name": "efficient_unet", "num_blocks": [10**4] * 4}}, "at most 128 residual blocks in all"),
        ({"model": {"name": "unet", "channel_mults": [1] * 100}}, "has 100 levels"),
        (
            {"model": {"name": "unet", "channel_mults": [1] * 5, "attention_levels": [False] * 5}},
            "image_size = 8 can't be halved as often",
        ),
    ],
)
def test_a_config_of_absurd_values_is_one_error(cascade, changes, message):
    path = cascade / "stage_8" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=f"is no config of a stage: .*{message}"):
        read_stage_config(path)


# Writing.


def parts(written: Path) -> tuple[Any, Any, Path]:
    encoder = written.parent / "encoder"
    return [tiny_cascade.stage_config(8, encoder)], [tiny_cascade.params_of(8, encoder)], encoder


def test_files_are_readable_as_the_umask_says(written, tmp_path):
    configs, params, encoder = parts(written)
    before = os.umask(0o027)
    try:
        write_cascade(tmp_path / "c", configs, params, encoder_folder=encoder)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert modes == {0o640}
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o750


def test_an_export_deletes_what_a_killed_one_left_and_nothing_else(written, tmp_path):
    configs, params, encoder = parts(written)
    killed = tmp_path / "c.partial-0123"
    (killed / "stage_8").mkdir(parents=True)
    (killed / ".imagen_jax_export").write_bytes(export_folder._MARK)
    for name in ("c.partial", "c.partial-mine", "c2.partial-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("kept")
    (tmp_path / "c2.partial-1" / ".imagen_jax_export").write_bytes(export_folder._MARK)
    write_cascade(tmp_path / "c", configs, params, encoder_folder=encoder)
    assert {path.name for path in tmp_path.iterdir()} == {"c", "c.partial", "c.partial-mine", "c2.partial-1"}
    assert not (tmp_path / "c" / ".imagen_jax_export").exists()
    load_cascade(tmp_path / "c", keep_encoder=False)


def test_an_export_leaves_one_that_runs_alone(written, tmp_path):
    configs, params, encoder = parts(written)
    with export_folder._unfinished_folder(tmp_path / "c") as other:
        write_cascade(tmp_path / "c", configs, params, encoder_folder=encoder)
        assert other.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_full_disk_leaves_nothing_and_is_one_line(written, tmp_path, monkeypatch):
    configs, params, encoder = parts(written)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(export_folder, "save_file", full)
    with pytest.raises(StorageError, match=r"can't write .*/c\": No space left on device"):
        write_cascade(tmp_path / "c", configs, params, encoder_folder=encoder)
    assert list(tmp_path.iterdir()) == []


def test_parameters_that_are_not_finite_are_not_exported(written, tmp_path):
    configs, _, encoder = parts(written)
    with pytest.raises(NotFiniteError, match="stage of 8 px: parameter a/b holds infinities or NaN"):
        write_cascade(tmp_path / "c", configs, [{"a": {"b": np.array([np.inf])}}], encoder_folder=encoder)
    assert list(tmp_path.iterdir()) == []


def test_a_cascade_is_not_written_over_anything(written, tmp_path):
    configs, _, _ = parts(written)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in (written, tmp_path / "link"):
        with pytest.raises(InputError, match="exists; choose another --out"):
            check_can_write(out, configs)


def test_the_home_folder_may_be_written_as_a_tilde(cascade, monkeypatch):
    monkeypatch.setenv("HOME", str(cascade.parent))
    assert cascade_fingerprint("~/cascade") == cascade_fingerprint(cascade)
    assert list(load_cascade("~/cascade", keep_encoder=False).stages) == [8, 16]
