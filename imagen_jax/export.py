"""Writes a cascade folder from the workdirs of its stages' training runs.

python -m imagen_jax.export --workdirs=BASE,SR1,SR2 --out=CASCADE [--encoder=DIR]
"""

import dataclasses
import json
from pathlib import Path

from absl import flags

from imagen_jax import cli
from imagen_jax.errors import InputError
from imagen_jax.sampling.cascade import StageConfig, write_cascade
from imagen_jax.text.encoder import load_encoder
from imagen_jax.training.checkpoint import load_ema_params

_WORKDIRS = flags.DEFINE_list(
    "workdirs", None, "Workdirs of the stages, base first, separated by commas.", required=True
)
_OUT = flags.DEFINE_string("out", None, "The cascade folder to write.", required=True)
_ENCODER = flags.DEFINE_string("encoder", None, "The text encoder's folder, if it isn't where training had it.")


def main() -> None:
    """Writes the folder and prints what is in it."""
    configs, params = [], []
    for workdir in map(Path, _WORKDIRS.value):
        config = _read_stage(workdir)
        ema_params, step = load_ema_params(workdir)
        configs.append(dataclasses.replace(config, provenance={**config.provenance, "step": step}))
        params.append(ema_params)
        print(f"{workdir}: {config.image_size} px, step {step}")
    folder = Path(_ENCODER.value or configs[0].provenance["text_encoder"])
    encoder = load_encoder(folder)
    for config in configs:
        if config.provenance["encoder_fingerprint"] != encoder.fingerprint:
            raise InputError(
                f'stage "{config.name}" was trained with {config.provenance["encoder_name"]}, and "{folder}" is '
                f"{encoder.name}; name the right folder with --encoder"
            )
    write_cascade(Path(_OUT.value), configs, params, encoder_folder=folder)
    print(f"cascade: {_OUT.value}")


def _read_stage(workdir: Path) -> StageConfig:
    path = workdir / "stage.json"
    if not path.is_file():
        raise InputError(f'"{path}" is missing; expected the --workdir of a training run')
    return StageConfig(**json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    cli.run(main)
