"""Samples from a cascade.

python -m imagen_jax.sample --cascade=CASCADE --prompt="red apple, twemoji style" [--prompt=...] --out=DIR

A sampling setting has one value for all stages, or one a stage: --guidance=3/1/1; 3/ changes the first stage alone.

Writes one PNG an image and stage, a labelled grid of the last stage, and samples.json with prompts, seed and settings.
The text encoder is loaded for the prompts alone, and freed before the networks are.
"""

import dataclasses
from typing import Any

from absl import flags, logging

from imagen_jax import cli, shared_flags
from imagen_jax.errors import InputError
from imagen_jax.sampling import Cascade, load_cascade
from imagen_jax.sampling.folder import cascade_fingerprint
from imagen_jax.sampling.prompts import check_prompts, read_prompts_file
from imagen_jax.sampling.samples_folder import SamplesFolder
from imagen_jax.sampling.settings import without_effect
from imagen_jax.sampling_flags import define_setting_flags
from imagen_jax.terminal import say
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.text.tokenizer import check_captions

_CASCADE = shared_flags.define_path("cascade", None, "Cascade folder, by imagen_jax.export.", required=True)
_PROMPTS = flags.DEFINE_multi_string("prompt", [], "What to draw; repeatable.")
_PROMPTS_FILE = shared_flags.define_path("prompts_file", None, "UTF-8 text file with one prompt per line.")
_EMBEDDINGS = shared_flags.define_path("embeddings", None, "File by --save_embeddings, in place of prompts.")
_SAVE_EMBEDDINGS = shared_flags.define_path("save_embeddings", None, "File to write the prompts' embeddings to.")
_ENCODER = shared_flags.define_path("encoder", None, "The text encoder's folder, if it isn't where training had it.")
_encoder_settings = shared_flags.define_encoder_flags()
_OUT = shared_flags.define_path("out", None, "Folder to write: a new one, or that of the same command.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of all noise.", lower_bound=0, upper_bound=2**32 - 1)
_NEGATIVE_PROMPT = flags.DEFINE_string("negative_prompt", None, "What guidance leads away from, for all prompts.")
_WEAK_CASCADE = shared_flags.define_path(
    "weak_cascade", None, "Autoguidance: a cascade of the same networks, trained less, that guidance leads away from."
)
_settings_given = define_setting_flags()
_STOP_AT = flags.DEFINE_integer("stop_at", None, "Stop after the stage of this image size.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at a time, all devices together.", lower_bound=1)
_device_settings = shared_flags.define_device_flags()
_ALLOW_MODULES = shared_flags.define_allow_modules()


def main() -> None:
    """Samples and prints where the pictures are."""
    allowed: dict[str, Any] = {"allow_modules": _ALLOW_MODULES.value}
    cascade = load_cascade(
        _CASCADE.value, keep_encoder=False, encoder_folder=_ENCODER.value, **allowed, **_encoder_settings()
    )
    sizes = cascade.sizes(_STOP_AT.value)
    overrides = _settings_given()
    settings = dict(zip(sizes, map(dataclasses.asdict, cascade.settings(**overrides)), strict=False))
    for remark in without_effect(list(overrides), [settings]):
        logging.warning("--%s", remark)
    cascade.meshes(**_device_settings())  # an error now rather than after the text encoder has run
    prompts: list[str] | Embeddings = _prompts()
    negative: list[str] | Embeddings | None = [_NEGATIVE_PROMPT.value] if _NEGATIVE_PROMPT.value else None
    weak = load_cascade(_WEAK_CASCADE.value, keep_encoder=False, **allowed) if _WEAK_CASCADE.value else None
    out = SamplesFolder(
        _OUT.value,
        _describe(weak, settings={str(size): values for size, values in settings.items()}),
        prompts.captions if isinstance(prompts, Embeddings) else prompts,
        sizes,
    )
    out.begin()
    if _SAVE_EMBEDDINGS.value:
        prompts, negative = cascade.embed_both(prompts, negative)
        prompts.save(_SAVE_EMBEDDINGS.value)
    images = cascade.sample(
        prompts,
        seed=_SEED.value,
        stop_at=_STOP_AT.value,
        negative_prompts=negative,
        weak=weak,
        batch_size=_BATCH_SIZE.value,
        log_stages=True,
        **_device_settings(),
        **overrides,
    )
    out.write(images)
    say(f"{len(prompts)} images at {', '.join(map(str, images))} px: {_OUT.value}/grid.png and the PNGs beside it")


def _describe(weak: Cascade | None, *, settings: dict[str, Any]) -> dict[str, Any]:
    """What the pictures depend on, besides the prompts."""
    return {
        "cascade": str(_CASCADE.value),
        "cascade_sha256": cascade_fingerprint(_CASCADE.value, allow_modules=_ALLOW_MODULES.value),
        "seed": _SEED.value,
        "negative_prompt": _NEGATIVE_PROMPT.value,
        "weak_cascade": str(_WEAK_CASCADE.value) if weak else None,
        "weak_cascade_sha256": cascade_fingerprint(_WEAK_CASCADE.value, allow_modules=_ALLOW_MODULES.value)
        if weak
        else None,
        "settings": settings,
    }


def _prompts() -> list[str] | Embeddings:
    given = [flag.value for flag in (_PROMPTS, _PROMPTS_FILE, _EMBEDDINGS) if flag.value]
    if len(given) != 1:
        raise InputError(
            'what to draw? give --prompt="..." (repeatable), --prompts_file=FILE or --embeddings=FILE, one of them'
        )
    if _EMBEDDINGS.value:
        return Embeddings.load(_EMBEDDINGS.value)
    prompts = read_prompts_file(_PROMPTS_FILE.value) if _PROMPTS_FILE.value else list(_PROMPTS.value)
    check_prompts(prompts)
    check_captions(prompts)
    return prompts


if __name__ == "__main__":
    cli.run(main)
