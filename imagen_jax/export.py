"""Writes a cascade folder from the workdirs of its stages' training runs.

python -m imagen_jax.export --workdirs=BASE,SR1,SR2 --out=CASCADE [--encoder=DIR] [--copy_encoder]
    [--frozen_from=CASCADE/STAGE,...]

An untrained text encoder is copied into the folder. A published one, which may have gigabytes, stays where it is unless
asked for; the cascade then remembers its folder. Parameters that a run kept frozen are read where it read them, or in a
folder of --frozen_from.
"""

import dataclasses

from absl import flags

from imagen_jax import cli
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from imagen_jax.sampling.export_folder import check_can_write, write_cascade
from imagen_jax.sampling.folder import STAGE_FILE, read_stage_config
from imagen_jax.shared_flags import define_allow_modules, define_path
from imagen_jax.terminal import say
from imagen_jax.text.encoder import has_weights, identify_encoder
from imagen_jax.trained import load_run_params

_WORKDIRS = flags.DEFINE_list(
    "workdirs", None, "Workdirs of the stages, base first, separated by commas.", required=True
)
_OUT = define_path("out", None, "The cascade folder to write.", required=True)
_ENCODER = define_path("encoder", None, "The text encoder's folder, if it isn't where training had it.")
_COPY_ENCODER = flags.DEFINE_bool("copy_encoder", False, "Copy the encoder's weights into the cascade's folder.")
_FROZEN_FROM = flags.DEFINE_list(
    "frozen_from", [], "Where frozen parameters are, if they aren't where training had them: stages or workdirs."
)
_ALLOW_MODULES = define_allow_modules()


def main() -> None:
    """Writes the folder and prints what is in it."""
    workdirs, out = [user_path(name) for name in _WORKDIRS.value], _OUT.value
    allowed = _ALLOW_MODULES.value
    configs = [read_stage_config(workdir / STAGE_FILE, allow_modules=allowed) for workdir in workdirs]
    check_can_write(out, configs)
    folder = _ENCODER.value or user_path(configs[0].text_encoder)
    if not _ENCODER.value and not (configs[0].text_encoder and folder.is_dir()):
        raise InputError(
            f'training had {configs[0].encoder_name} in "{configs[0].text_encoder}", where it is no more; name its '
            "folder with --encoder"
        )
    name, fingerprint = identify_encoder(folder)
    if fingerprint != configs[0].encoder_fingerprint:
        raise InputError(
            f'the stages were trained with {configs[0].encoder_name}, and "{folder}" is {name}; name the right folder '
            "with --encoder"
        )
    params = []
    for number, workdir in enumerate(workdirs):
        ema_params, step = load_run_params(
            workdir, configs[number], frozen_from=_FROZEN_FROM.value, allow_modules=allowed
        )
        configs[number] = dataclasses.replace(configs[number], step=step, text_encoder=str(folder.resolve()))
        params.append(ema_params)
        say(f"{workdir}: {configs[number].image_size} px, step {step}")
    copied = _COPY_ENCODER.value or not has_weights(folder)
    write_cascade(out, configs, params, encoder_folder=folder if copied else None)
    say(f"cascade: {out}")


if __name__ == "__main__":
    cli.run(main)
