"""Samples from a cascade.

python -m imagen_jax.sample --cascade=CASCADE --prompt="red apple, twemoji style" [--prompt=...] --out=DIR

Writes one PNG an image and stage, a labelled grid of the last stage, and samples.json with prompts, seed and settings.
"""

import dataclasses
from pathlib import Path

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
# Settings: in place of a stage's own; one value for all stages, or one a stage separated by commas.
_GUIDANCE = flags.DEFINE_list("guidance", None, "Guidance weight: one for all stages, or one a stage; 1 is none.")
_GUIDANCE_INTERVAL = flags.DEFINE_list(
    "guidance_interval", None, "FROM:TO, times in 0 (clean) to 1 (noise) between which there is guidance."
)
_GUIDANCE_RESCALE = flags.DEFINE_list("guidance_rescale", None, "0 to 1: towards the unguided image's contrast.")
_STEPS = flags.DEFINE_list("steps", None, "Sampling steps: one for all stages, or one a stage.")
_SAMPLER = flags.DEFINE_list("sampler", None, f"One of {', '.join(SAMPLERS)}.")
_SPACING = flags.DEFINE_list("spacing", None, f"Of the steps: one of {', '.join(SPACINGS)}.")
_GAMMA = flags.DEFINE_list("gamma", None, "Stochasticity of ddpm, 0 to 1.")
_ETA = flags.DEFINE_list("eta", None, "Stochasticity of ddim, 0 to 1.")
_THRESHOLD = flags.DEFINE_list("threshold", None, f"One of {', '.join(THRESHOLDS)}.")
_AUG_LEVEL = flags.DEFINE_list(
    "aug_level", None, "Noise level of the low-resolution input, 0 to 1: one, or one a stage."
)
_STOP_AT = flags.DEFINE_integer("stop_at", None, "Stop after the stage of this image size.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at a time.", lower_bound=1)


def main() -> None:
    """Samples and prints where the pictures are."""
    prompts = _read_prompts()
    cascade = load_cascade(_CASCADE.value)
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    overrides = {
        "guidance": cli.numbers(_GUIDANCE, float),
        "guidance_interval": _intervals(),
        "guidance_rescale": cli.numbers(_GUIDANCE_RESCALE, float),
        "steps": cli.numbers(_STEPS, int),
        "sampler": _one_or_all(_SAMPLER.value),
        "spacing": _one_or_all(_SPACING.value),
        "gamma": cli.numbers(_GAMMA, float),
        "eta": cli.numbers(_ETA, float),
        "threshold": _one_or_all(_THRESHOLD.value),
        "aug_level": cli.numbers(_AUG_LEVEL, float),
    }
    images = cascade.sample(
        prompts,
        seed=_SEED.value,
        stop_at=_STOP_AT.value,
        negative_prompts=_NEGATIVE_PROMPT.value,
        weak=load_cascade(_WEAK_CASCADE.value) if _WEAK_CASCADE.value else None,
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


def _one_or_all(values: list[str] | None) -> str | list[str] | None:
    return values[0] if values and len(values) == 1 else values


def _intervals() -> list[tuple[float, float]] | tuple[float, float] | None:
    if _GUIDANCE_INTERVAL.value is None:
        return None
    intervals = []
    for text in _GUIDANCE_INTERVAL.value:
        try:
            low, high = (float(number) for number in text.split(":"))
        except ValueError:
            raise InputError(f'--guidance_interval: expected FROM:TO, such as 0.2:0.8 (got "{text}")') from None
        intervals.append((low, high))
    return intervals[0] if len(intervals) == 1 else intervals


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
