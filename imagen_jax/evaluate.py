"""Measures a cascade on a data set's captions, each sampled once.

python -m imagen_jax.evaluate --cascade=CASCADE --data=emoji/food:train --num_samples=128 --out=DIR [--guidance=1,3,7]

Writes results.json and a grid. For each guidance weight of the base stage: the share of base images whose nearest
training image (mean squared distance) has the caption's own name; for each stage, how white the corners are, and how
far it strays from the low-resolution image it was given. The data set's records must have names (the emoji have).
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from imagen_jax import build, cli
from imagen_jax.data.sources import Source, open_source
from imagen_jax.errors import InputError
from imagen_jax.evaluation import fidelity, retrieval
from imagen_jax.sampling import load_cascade
from imagen_jax.sampling.images import labelled_grid, save_png, to_uint8

_CASCADE = flags.DEFINE_string("cascade", None, "Cascade folder, by imagen_jax.export.", required=True)
_DATA = flags.DEFINE_string("data", None, "Captions to sample, for example emoji/food:test.", required=True)
_REFERENCE = flags.DEFINE_string("reference", None, "Images to search; default: what the base stage was trained on.")
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared data sets are kept.")
_ENCODER = flags.DEFINE_string("encoder", None, "The text encoder's folder, if it isn't where training had it.")
_encoder_settings = cli.define_encoder_flags()
_OUT = flags.DEFINE_string("out", None, "Folder to write.", required=True)
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", 128, "Captions, drawn with the seed; at most the data set's.", lower_bound=1
)
_GUIDANCE = flags.DEFINE_list("guidance", None, "Guidance weights of the base stage; default: its own.")
_STOP_AT = flags.DEFINE_integer("stop_at", None, "Stop after the stage of this image size.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the captions drawn, and of all noise.", lower_bound=0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images at a time, all devices together.", lower_bound=1)
_device_settings = cli.define_device_flags()

_GRID_IMAGES = 32


def main() -> None:
    """Samples, measures, writes and prints."""
    cascade = load_cascade(_CASCADE.value, keep_encoder=False, encoder_folder=_ENCODER.value, **_encoder_settings())
    cascade.meshes(**_device_settings())  # an error now rather than after data and text encoder
    source = open_source(_DATA.value, data_dir=_DATA_DIR.value)
    reference_spec = _REFERENCE.value or cascade.configs[0].source
    reference = open_source(reference_spec, data_dir=_DATA_DIR.value)
    base_size = cascade.configs[0].image_size
    reference_images = to_uint8(build.source_images(reference, range(len(reference)), image_size=base_size))
    reference_names = _names(reference, range(len(reference)))
    count = min(_NUM_SAMPLES.value, len(source))
    chosen = np.sort(np.random.default_rng(_SEED.value).permutation(len(source))[:count])
    names = _names(source, chosen)
    captions = source.captions()
    prompts = [captions[index] for index in chosen]

    weights = cli.one_or_list(_GUIDANCE, float)
    own = cascade.stages[base_size].settings.guidance_weight
    text = cascade.embed(prompts)
    results = []
    for weight in weights if isinstance(weights, list) else [weights if weights is not None else own]:
        start = time.perf_counter()
        others = [stage.settings.guidance_weight for stage in list(cascade.stages.values())[1:]]
        images = cascade.sample(
            text,
            seed=_SEED.value,
            guidance=[weight, *others],
            stop_at=_STOP_AT.value,
            batch_size=_BATCH_SIZE.value,
            **_device_settings(),
        )
        result: dict[str, Any] = {"guidance": weight, "num_samples": count, "data": _DATA.value}
        result["name_accuracy"] = retrieval.accuracy(images[base_size], names, reference_images, reference_names)
        result |= _fidelity(images)
        result["seconds"] = round(time.perf_counter() - start, 1)
        results.append(result)
        print(json.dumps(result))
        last = list(images.values())[-1][:_GRID_IMAGES]
        grid = labelled_grid(list(last), prompts[:_GRID_IMAGES], columns=8)
        save_png(grid, Path(_OUT.value) / f"grid_guidance{weight:g}.png")
    path = Path(_OUT.value) / "results.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"results: {path}")


def _fidelity(images: dict[int, np.ndarray]) -> dict[str, float]:
    found: dict[str, float] = {}
    before: np.ndarray | None = None
    for size, batch in images.items():
        found[f"corner_deviation_{size}"] = fidelity.corner_deviation(batch)
        if before is not None:
            pixel, colour = fidelity.consistency(batch, before)
            found[f"consistency_{size}"], found[f"colour_shift_{size}"] = pixel, colour
        before = batch
    return found


def _names(source: Source, indices: Any) -> list[str]:
    records = [source[int(index)] for index in indices]
    if any("name" not in record for record in records):
        raise InputError(
            f'the records of "{source.spec}" have no names to compare; expected a data set such as emoji:test'
        )
    return [record["name"] for record in records]


if __name__ == "__main__":
    cli.run(main)
