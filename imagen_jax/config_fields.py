"""Every field of a config: its type, its bounds and what it is for. config.py checks with it; docs/config.md lists it.

Bounds keep out what can't be meant, or would overflow a type or a library: they are far from what has been used. Names
(a sampler, a schedule) are texts here: each is looked up in its own table, which lists the choices.
"""

from collections.abc import Mapping

from imagen_jax.fields import Field
from imagen_jax.models import MODELS, fields_of
from imagen_jax.models.fields import REMAT
from imagen_jax.resolve import FOLLOW
from imagen_jax.sampling.settings import SETTINGS

# A side of an image: a network of 2^13 pixels a side would take a pod for one image.
_MAX_PIXELS = 8_192
_MAX_IMAGES = 2**20
# Steps are counted in int32.
_MAX_STEPS = 10**9


def _share(help: str) -> Field:
    return Field(float, help, 0, 1)


def _steps(help: str, *, lower: int = 1) -> Field:
    return Field(int, help, lower, _MAX_STEPS)


def _pixels(help: str, *, lower: int = 0) -> Field:
    return Field(int, help, lower, _MAX_PIXELS)


def _name(help: str) -> Field:
    return Field(str, help, filled=True)


def _path(help: str, *, filled: bool = False) -> Field:
    return Field(str, help, filled=filled, is_path=True)


# By path. Of the network: `model_fields`.
FIELDS: Mapping[str, Field] = {
    "seed": Field(int, "Of initialisation, data order and noise.", 0, 2**32, "upper"),
    "ema_decay": Field(float, "Decay of the average of the parameters that is sampled and exported.", 0, 1, "both"),
    "prompts": Field(
        str,
        "Prompts of the sample grids; (auto,): captions of the data set; (): no grids.",
        filled=True,
        length=(0, 1_024),
        example='("red apple", "blue heart")',
    ),
    "conditions": Field(
        str,
        "What the network is told besides the caption and the low-resolution input: import paths of your own classes.",
        filled=True,
        length=(0, 16),
        example='("my_project.conditions:Style",)',
    ),
    "data.source": Field(
        str,
        'The data set: "emoji/food:train", "folder/PATH", "tfds/NAME:SPLIT", "my_project.data:open_mine".',
        is_path=True,
    ),
    "data.data_dir": _path("Folder where prepared data sets are kept.", filled=True),
    "data.text_store": _path("Folder with the embeddings of the source's captions, by imagen_jax.precompute_text."),
    "data.text_encoder": _path("The text encoder's folder, for prompts that are no captions, and for export."),
    "data.image_size": _pixels("Pixels of a side of the stage's images.", lower=1),
    "data.low_res_size": _pixels("Pixels of a side of the previous stage's images; 0: this is a base stage."),
    "data.crop_size": _pixels("Train on random crops of so many pixels a side; 0: on whole images."),
    "data.batch_size": Field(int, "Images per step, over all devices.", 1, _MAX_IMAGES),
    "data.max_tokens": Field(int, "Text tokens per example; longer captions are cut.", 1, 4_096),
    "data.held_out": Field(int, "Examples, drawn with the seed, measured instead of trained on.", 0, 10**7),
    "model.name": _name('The network: unet, efficient_unet, or one of your own, "my_project.nets:MyNet".'),
    "model.dtype": _name("Type of the computation, bfloat16 or float32; parameters are float32."),
    "model.remat": REMAT,
    "diffusion.schedule": _name("The noise schedule, a key of diffusion.schedules.SCHEDULES."),
    "diffusion.prediction": _name("What the network predicts: eps, v or x."),
    "diffusion.weighting": _name("Loss weighting, a key of diffusion.objective.WEIGHTINGS; plain: squared error."),
    "diffusion.stratified_times": Field(bool, "Spread the times evenly over a batch; False: draw each by itself."),
    "diffusion.caption_drop_rate": _share("Share of examples without caption, which train the unconditional model."),
    "diffusion.max_aug_level": _share("Largest noise level of the low-resolution input; levels are drawn below it."),
    "optimizer.name": _name("The optimizer, a key of training.optimizer.OPTIMIZERS."),
    "optimizer.learning_rate": Field(float, "The learning rate at the end of the warm-up.", 0, 10, "lower"),
    "optimizer.warmup_steps": _steps("Steps of linear warm-up.", lower=0),
    "optimizer.decay_steps": _steps(
        "Length of the cosine decay to 0, from step 0; -1: that of the run; 0: no decay.", lower=FOLLOW
    ),
    "optimizer.grad_clip_norm": Field(float, "Bound of the gradient's global norm; 0: no clipping.", 0, 10**9),
    "optimizer.b1": Field(float, "Adam's decay of the first moment.", 0, 1, "upper"),
    "optimizer.b2": Field(float, "Adam's decay of the second moment.", 0, 1, "upper"),
    "optimizer.weight_decay": Field(float, "AdamW's: a step takes learning_rate times this of every kernel.", 0, 100),
    "train.init_from": _path(
        "Parameters to begin with: of a cascade's stage, CASCADE/STAGE, or a run's workdir; empty: random ones."
    ),
    "train.trainable": Field(
        str,
        "Which parameters are trained, by their paths (--dry_run lists them), in which * stands for any text; the "
        "others are frozen.",
        filled=True,
        length=(1, 1_024),
        example='("*attention*", "conv_out/*")',
    ),
    "train.strategy": _name("What of the state is divided among devices, a key of training.parallel.STRATEGIES."),
    "train.num_steps": _steps("Steps of the whole training."),
    "train.num_epochs": Field(float, "Passes over the data set, in place of num_steps; 0: num_steps counts.", 0, 10**6),
    "train.accumulate_steps": Field(int, "Parts in which a device computes its share of a batch.", 1, _MAX_IMAGES),
    "train.log_every": _steps("Steps between lines of the log."),
    "train.checkpoint_every": _steps("Steps between checkpoints."),
    "train.sample_every": _steps("Steps between grids of config.prompts."),
    "train.keep_checkpoints": Field(int, "How many checkpoints are kept, the newest.", 1, 10_000),
    "train.stall_minutes": Field(
        float, "Ends the process if no step or evaluation is done for so many minutes; 0: never.", 0, 525_600
    ),
    "evaluation.metrics": Field(
        str,
        "Metrics of samples in training, keys of evaluation.metrics.METRICS or import paths; (): none.",
        filled=True,
        length=(0, 100),
        example='("fd_emojicnn", "names")',
    ),
    "evaluation.every": _steps("Steps between evaluations."),
    "evaluation.num_samples": Field(int, "Captions of the data set that are sampled.", 1, 10**7),
    "evaluation.num_reference": Field(int, "Images of the data set to compare with, at most.", 1, 10**9),
    "evaluation.batch_size": Field(int, "Images sampled at a time, over a host's devices.", 1, _MAX_IMAGES),
    "evaluation.inception_weights": _path("File of FID's network, for the metrics that need it."),
    "evaluation.clip": _path("Folder with a CLIP, for the metrics that need it."),
    **{f"sampling.{name}": setting.field for name, setting in SETTINGS.items()},
}


def model_fields(network: str) -> dict[str, Field]:
    """The fields of `config.model` for a network, without the ones that every network has; {} of an unknown one."""
    return {f"model.{name}": field for name, field in fields_of(network).items()}


def as_markdown(defaults: Mapping[str, object]) -> str:
    """Returns the page docs/config.md: tables of every field with its default, its values and its meaning.

    Args:
      defaults: by path; those of a network's attributes by "NETWORK:model.ATTRIBUTE".
    """
    intro = (
        "# Every field of a config\n\n"
        "On a command line each is `--config.PATH=VALUE`; in a file of configs/ `config.PATH = VALUE`. This page is "
        "written by\n`python -c 'from tests.test_config_fields import write_page; write_page()'` from "
        "`imagen_jax/config_fields.py`.\n"
    )
    sections = [("The run", {path: field for path, field in FIELDS.items() if "." not in path}, "")]
    groups = dict.fromkeys(path.split(".")[0] for path in FIELDS if "." in path)
    sections += [
        (f"config.{group}", {path: field for path, field in FIELDS.items() if path.startswith(f"{group}.")}, "")
        for group in groups
    ]
    sections += [(f"config.model, with name = {network}", model_fields(network), f"{network}:") for network in MODELS]
    return intro + "".join(_section(title, fields, prefix, defaults) for title, fields, prefix in sections)


def _section(title: str, fields: Mapping[str, Field], prefix: str, defaults: Mapping[str, object]) -> str:
    rows = [
        f"| `{path}` | {_default(defaults.get(f'{prefix}{path}'))} | {field.expected} | {field.help} |"
        for path, field in fields.items()
    ]
    head = "| field | default | values | meaning |\n|---|---|---|---|"
    return f"\n## {title}\n\n{head}\n" + "\n".join(rows) + "\n"


def _default(value: object) -> str:
    return "" if value is None else f"`{value!r}`"
