"""The flags that the mains share."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from imagen_jax import build, evaluators
from imagen_jax import config as config_lib
from imagen_jax.errors import InputError
from imagen_jax.files import user_path
from launch.package import REPOSITORY
from launch.pod import Pod

# A flag that a function below defines belongs to the main that calls it, whose --help lists it.
flags.disclaim_key_flags()

# Folders that training reads; on the bucket, or the workers don't have them.
_FOLDERS = ("data.data_dir", "data.text_store", "data.text_encoder", "train.init_from")


def define_dry_run() -> flags.FlagHolder[bool]:
    """Defines --dry_run."""
    return flags.DEFINE_bool("dry_run", False, "Print every command and run none.")


def define_pod() -> Callable[[], Pod]:
    """Defines the flags of a pod. They are the same for every command of a run; --flagfile=FILE keeps them in a file.

    Returns:
      A function that reads them, and raises InputError for what Google Cloud would refuse.
    """
    name = flags.DEFINE_string("name", None, "The run's name; its folder, /mnt/BUCKET/runs/NAME, follows from it.")
    project = flags.DEFINE_string("project", None, "Google Cloud project's id.")
    zone = flags.DEFINE_string("zone", None, "Where the TPUs are: us-central2-b.")
    accelerator = flags.DEFINE_string("accelerator", None, "v4-512 (256 chips), v5litepod-256, v5p-256, v6e-256, ...")
    bucket = flags.DEFINE_string("bucket", None, "Cloud Storage bucket, without gs://.")
    runtime = flags.DEFINE_string("runtime", "", "The VMs' TPU software version; default: by the TPU's generation.")
    spot = flags.DEFINE_bool("spot", False, "Cheaper capacity, which may be taken away at any time.")
    reserved = flags.DEFINE_bool("reserved", False, "Capacity of the project's reservation.")
    flags.mark_flags_as_required([name, project, zone, accelerator, bucket])

    def read() -> Pod:
        texts = {"name": name, "project": project, "zone": zone, "accelerator": accelerator, "bucket": bucket}
        return Pod(
            **{field: flag.value or "" for field, flag in texts.items()},
            runtime=runtime.value,
            spot=spot.value,
            reserved=reserved.value,
        )

    return read


def define_revision() -> flags.FlagHolder[str]:
    """Defines --revision."""
    return flags.DEFINE_string(
        "revision", "", "Git revision of the code to send; default: the working tree, local changes included."
    )


def define_train() -> Callable[[Pod, Sequence[str]], list[str]]:
    """Defines --config, as imagen_jax.train has it.

    Returns:
      A function of the pod and of further flags for train, which makes the command that follows `python -m`. It raises
      InputError for what train would refuse on the workers, hours later.
    """
    holder = config_flags.DEFINE_config_file("config", None, "The run: configs/X.py[:VARIANT].", lock_config=True)
    flags.mark_flag_as_required("config")

    def command(pod: Pod, further: Sequence[str]) -> list[str]:
        _check(holder.value, pod)
        return ["imagen_jax.train", *_config_arguments(sys.argv), f"--workdir={pod.workdir}", *further]

    return command


def _check(config: Any, pod: Pod) -> None:
    jax.config.update("jax_platforms", "cpu")  # a look at a config needs no accelerator of this machine
    config_lib.validate(config, num_devices=pod.num_devices)
    build.check(config)
    evaluators.check(config)
    build.shapes(config, text_width=build.text_width(config)[0])
    source = config.data.source
    if source.startswith("folder/") and not source.startswith(f"folder/{pod.mount}/"):
        raise InputError(
            f'config.data.source="{source}": the workers find only what is on the bucket; copy it to gs://{pod.bucket} '
            f"and give --config.data.source=folder/{pod.mount}/{Path(source).name}"
        )
    elsewhere = {
        field: value
        for field in _FOLDERS
        if not (value := _at(config, field)).startswith(f"{pod.mount}/") and (value or field == "data.text_store")
    }
    if elsewhere:
        remedy = " ".join(
            f"--config.{field}={pod.mount}/{Path(value).name or field.partition('.')[2]}"
            for field, value in elsewhere.items()
        )
        raise InputError(
            f"the workers find only what is on the bucket, unlike {', '.join(f'config.{f}' for f in elsewhere)}; "
            f"copy it to gs://{pod.bucket} and add, for instance, {remedy}"
        )


def _at(config: Any, field: str) -> str:
    group, _, name = field.partition(".")
    return config[group][name]


def _config_arguments(argv: Sequence[str]) -> list[str]:
    """--config and every --config.key of a command line, with the path of the file as the workers have it."""
    end = argv.index("--") if "--" in argv else len(argv)
    arguments = []
    for i, arg in enumerate(argv[:end]):
        if not (found := re.fullmatch(r"--?((?:no)?config(?:\.[^=]+)?)(=.*)?", arg, re.DOTALL)):
            continue
        name, value = found[1], found[2]
        if value is None and i + 1 < end and not argv[i + 1].startswith("-"):
            value = f"={argv[i + 1]}"  # given as --config.key value
        if name == "config":
            value = f"={_in_repository((value or '=')[1:])}"
        arguments.append(f"--{name}{value or ''}")
    return arguments


def _in_repository(argument: str) -> str:
    path, colon, variant = argument.partition(":")
    try:
        relative = user_path(path).resolve().relative_to(REPOSITORY)
    except ValueError:
        raise InputError(f'--config: "{path}" is outside {REPOSITORY}, which is all that the workers get') from None
    return f"{relative.as_posix()}{colon}{variant}"
