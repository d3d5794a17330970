"""Samples from a cascade.

python -m imagen_jax.sample --cascade=CASCADE --prompt="red apple, twemoji style" [--prompt=...] --out=DIR

Writes one PNG an image and stage, a labelled grid of the last stage, and samples.json with prompts, seed and settings.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from imagen_jax import cli
from imagen_jax.diffusion.samplers import SAMPLERS
from imagen_jax.diffusion.spacings import SPACINGS
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.errors import InputError
from imagen_jax.files import write_json
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.images import labelled_grid, save_png

_CASCADE = flags.DEFINE_string("cascade", None, "Cascade folder, by imagen_jax.export.", required=True)
_PROMPTS = flags.DEFINE_multi_string("prompt", [], "What to draw; repeatable.")
_PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, "UTF-8 text file with a prompt a line.")
_OUT = flags.DEFINE_string("out", None, "Folder to write.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Of all noise.", lower_bound=0, upper_bound=2**32 - 1)
_NEGATIVE_PROMPT = flags.DEFINE_string("negative_prompt", None, "What guidance leads away from, for all prompts.")
_WEAK_CASCADE = flags.DEFINE_string(
    "weak_cascade", None, "Autoguidance: a cascade of the same networks, trained less, that guidance leads away from."
)
# In place of a stage's own setting: see sampling.settings.SamplingSettings.
_SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "guidance": (float, "Guidance weight; 1 is none."),
    "guidance_interval": (cli.times, "FROM:TO, times in 0 (clean) to 1 (noise) between which there is guidance."),
    "guidance_rescale": (float, "0 to 1: towards the unguided image's contrast."),
    "sampler": (str, f"{', '.join(SAMPLERS)}."),
    "steps": (int, "Sampling steps."),
    "spacing": (str, f"Of the steps: {', '.join(SPACINGS)}."),
    "times": (cli.times, "1:T:...:T, explicit levels in place of steps and spacing."),
    "gamma": (float, "Stochasticity of ddpm, 0 to 1."),
    "eta": (float, "Stochasticity of ddim, 0 to 1."),
    "threshold": (str, f"{', '.join(THRESHOLDS)}."),
    "threshold_percentile": (float, "Of dynamic, 0 to 100."),
    "threshold_cap": (float, "Of dynamic, at least 1; 0: none."),
    "aug_level": (float, "Noise level of the low-resolution input, 0 to 1."),
}
_SETTING_FLAGS = {
    name: flags.DEFINE_list(name, None, f"{text} One for all stages, or one a stage.")
    for name, (_, text) in _SETTINGS.items()
}
_STOP_AT = flags.DEFINE_integer("stop_at", None, "Stop after the stage of this image size.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at a time.", lower_bound=1)


def main() -> None:
    """Samples and prints where the pictures are."""
    prompts = _read_prompts()
    cascade = load_cascade(_CASCADE.value)
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    overrides = {name: cli.one_or_list(_SETTING_FLAGS[name], parse) for name, (parse, _) in _SETTINGS.items()}
    images = cascade.sample(
        prompts,
        seed=_SEED.value,
        stop_at=_STOP_AT.value,
        negative_prompts=_NEGATIVE_PROMPT.value,
        weak=load_cascade(_WEAK_CASCADE.value, encoder=cascade.encoder) if _WEAK_CASCADE.value else None,
        batch_size=_BATCH_SIZE.value,
        **overrides,
    )
    for size, batch in images.items():
        for index, image in enumerate(batch):
            save_png(image, out / f"{index:03d}_{size}.png")
    last = list(images.values())[-1]
    save_png(labelled_grid(list(last), prompts, columns=min(4, len(prompts))), out / "grid.png")
    settings = zip(cascade.stages, cascade.settings(**overrides), strict=True)
    record = {
        "cascade": _CASCADE.value,
        "seed": _SEED.value,
        "negative_prompt": _NEGATIVE_PROMPT.value,
        "weak_cascade": _WEAK_CASCADE.value,
        "settings": {str(size): dataclasses.asdict(used) for size, used in settings if size in images},
        "images": [
            {"index": index, "prompt": prompt, "files": [f"{index:03d}_{size}.png" for size in images]}
            for index, prompt in enumerate(prompts)
        ],
    }
    write_json(out / "samples.json", record)
    print(f"{len(prompts)} images at {', '.join(map(str, images))} px: {out}/grid.png and the PNGs beside it")


def _read_prompts() -> list[str]:
    given, file = _PROMPTS.value, _PROMPTS_FILE.value
    if bool(given) == bool(file):
        raise InputError('what to draw? give --prompt="..." (repeatable) or --prompts_file=FILE, one of them')
    if not file:
        prompts = given
    else:
        path = Path(file)
        if not path.is_file():
            raise InputError(f'--prompts_file: no file "{path}"')
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f'--prompts_file: "{path}" is not UTF-8 (byte {error.start}); save it as UTF-8') from None
        prompts = [line.strip() for line in lines if line.strip()]
        if not prompts:
            raise InputError(f'--prompts_file: "{path}" is empty; expected a prompt a line')
    if any(not prompt.strip() for prompt in prompts):
        raise InputError("--prompt: a prompt is empty; say what to draw")
    return list(prompts)


if __name__ == "__main__":
    cli.run(main)
