"""What a cascade knows of a stage, checked when it is made: it may come from a file that somebody else wrote."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
from flax.traverse_util import flatten_dict

from imagen_jax.conditions import Condition, make_conditions
from imagen_jax.conditions.inputs import network_shapes
from imagen_jax.errors import InputError
from imagen_jax.models import make_model
from imagen_jax.registry import is_import_path
from imagen_jax.sampling.arguments import is_number, is_whole
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.sampling.stage import Stage

# A stage's folder lies beside these.
RESERVED_NAMES = ("text_encoder", "cascade.json")
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_TEXTS = (
    *("name", "schedule", "prediction", "encoder_name", "encoder_fingerprint", "text_encoder", "source"),
    "source_fingerprint",
)
_MAX_TEXT = 4096
# The largest of each: far above what anybody trains, and small enough that nothing takes minutes or gigabytes before
# the weights are found not to fit. Chosen by us.
_SIZES = {
    "image_size": 16_384,
    "low_res_size": 16_384,
    "max_tokens": 4_096,
    "text_width": 65_536,
    "step": 2**62,
}
_MAX_LEVELS, _MAX_BLOCKS, _MAX_CHANNELS, _MAX_CONDITIONS = 12, 128, 65_536, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What config.json holds for a stage.

    Attributes:
      name: of the stage and of its folder.
      model: name and keyword arguments of the network.
      image_size, low_res_size: pixels; low_res_size is None for the base.
      schedule, prediction: see `diffusion`.
      max_aug_level: the highest augmentation level that it was trained with.
      max_tokens, text_width: L and D of the text it was trained with.
      encoder_name, encoder_fingerprint: of the text encoder; text_encoder: its folder while training.
      source, source_fingerprint: the data it was trained on, and a hash of it ("" in folders of earlier versions).
      sampling: default `SamplingSettings`.
      step: of training; 0 while training goes on.
      conditions: import paths of conditions besides the text and the low-resolution input.
    """

    name: str
    model: Mapping[str, Any]
    image_size: int
    low_res_size: int | None
    schedule: str
    prediction: str
    max_tokens: int
    text_width: int
    encoder_name: str
    encoder_fingerprint: str
    text_encoder: str
    source: str
    sampling: Mapping[str, Any]
    source_fingerprint: str = ""
    max_aug_level: float = 1.0
    step: int = 0
    conditions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str) or len(getattr(self, name)) > _MAX_TEXT:
                raise InputError(f"{name} must be a text of at most {_MAX_TEXT} characters (got {_show(self, name)})")
        if not re.fullmatch(_NAME, self.name) or self.name in RESERVED_NAMES:
            raise InputError(
                f"name must be of letters, digits, _, - and ., as the folder's is (got {_show(self, 'name')})"
            )
        for name, largest in _SIZES.items():
            value = getattr(self, name)
            if name == "low_res_size" and value is None:
                continue
            smallest = 0 if name == "step" else 1
            if not is_whole(value) or not smallest <= value <= largest:
                raise InputError(f"{name} must be a whole number in [{smallest}, {largest}] (got {_show(self, name)})")
        if self.low_res_size is not None and self.low_res_size >= self.image_size:
            raise InputError(
                f"low_res_size must be below image_size, {self.image_size} (got {_show(self, 'low_res_size')})"
            )
        if not is_number(self.max_aug_level) or not 0 <= self.max_aug_level <= 1:
            raise InputError(f"max_aug_level must be in [0, 1] (got {_show(self, 'max_aug_level')})")
        paths = self.conditions
        if not isinstance(paths, list | tuple) or len(paths) > _MAX_CONDITIONS or not all(map(is_import_path, paths)):
            raise InputError(f"conditions must be import paths, MODULE:NAME (got {_show(self, 'conditions')})")
        object.__setattr__(self, "conditions", tuple(paths))
        for name in ("model", "sampling"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise InputError(f"{name} must be names with values (got {_show(self, name)})")
        check_network_size(self.model)


def check_network_size(model: Mapping[str, Any]) -> None:
    """Checks that what a config says of a network can be built without taking minutes or gigabytes.

    Args:
      model: keyword arguments of `make_model`, which checks their names.

    Raises:
      InputError: a size that no network here has.
    """
    if is_import_path(model.get("name")):
        return  # a network of the user's own, which has its own bounds
    levels = model.get("channel_mults", ())
    if isinstance(levels, list | tuple) and len(levels) > _MAX_LEVELS:
        raise InputError(f"model.channel_mults has {len(levels)} levels; expected at most {_MAX_LEVELS}")
    blocks = model.get("num_blocks", 0)
    total = sum(n for n in blocks if is_whole(n)) if isinstance(blocks, list | tuple) else blocks
    if is_number(total) and total * (1 if isinstance(blocks, list | tuple) else max(1, len(levels))) > _MAX_BLOCKS:
        raise InputError(f"model.num_blocks = {blocks!r:.80}: expected at most {_MAX_BLOCKS} residual blocks in all")
    widest = max((mult for mult in levels if is_number(mult)), default=1) if isinstance(levels, list | tuple) else 1
    for name, value in model.items():
        numbers = [n for n in (value if isinstance(value, list | tuple) else [value]) if not isinstance(n, str | bool)]
        for number in numbers:
            if not is_number(number) or abs(number) > _MAX_CHANNELS:
                raise InputError(f"model.{name} must be of numbers up to {_MAX_CHANNELS:,} (got {value!r:.80})")
    channels = model.get("channels", 1)
    if is_number(channels) and channels * widest > _MAX_CHANNELS:
        raise InputError(
            f"model.channels = {channels} times {widest}, of channel_mults, is above {_MAX_CHANNELS:,} channels"
        )


def named_modules(config: StageConfig) -> dict[str, str]:
    """Returns the modules that a config would have imported, each with the name that says so."""
    names = [config.model.get("name"), config.sampling.get("sampler"), *config.conditions]
    return {name.partition(":")[0]: name for name in names if isinstance(name, str) and is_import_path(name)}


def _show(config: "StageConfig", name: str) -> str:
    return f"{name} = {getattr(config, name)!r:.80}"


def parameter_shapes(config: StageConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of each parameter of a stage's network, by its path such as "conv_in/kernel"."""
    model = make_model(**config.model)
    inputs = network_shapes(conditions_of(config), sample_shape(config))
    shapes = jax.eval_shape(lambda **given: model.init(jax.random.key(0), **given), **inputs)["params"]
    return cast(dict[str, jax.ShapeDtypeStruct], flatten_dict(dict(shapes), sep="/"))


def sample_shape(config: StageConfig) -> tuple[int, ...]:
    """Returns the shape of a stage's samples, (H, W, 3)."""
    return config.image_size, config.image_size, 3


def conditions_of(config: StageConfig) -> tuple[Condition, ...]:
    """Returns what the network of a stage is told."""
    return make_conditions(
        max_tokens=config.max_tokens,
        text_width=config.text_width,
        image_size=config.image_size,
        low_res_size=config.low_res_size,
        max_aug_level=config.max_aug_level,
        own=config.conditions,
    )


def make_stage(config: StageConfig) -> Stage:
    """The `Stage` that a config describes."""
    return Stage(
        make_model(**config.model),
        conditions=conditions_of(config),
        shape=sample_shape(config),
        schedule=config.schedule,
        prediction=config.prediction,
        settings=SamplingSettings(**config.sampling),
    )


def check_chain(configs: Sequence[StageConfig], name: str) -> None:
    """Raises InputError where the stages of the cascade called `name` don't fit each other."""
    if not configs:
        raise InputError(f"{name}: a cascade needs at least one stage")
    before: int | None = None
    for config in configs:
        if config.low_res_size != before:
            wanted = "no low-resolution input (a base stage)" if before is None else f"a {before} px input"
            got = "none" if config.low_res_size is None else f"{config.low_res_size} px"
            raise InputError(
                f'{name}: stage "{config.name}" ({config.image_size} px) takes {got}, but its place in the cascade '
                f"gives {wanted}; order the stages so that each takes the size of the one before"
            )
        if (config.max_tokens, config.encoder_fingerprint) != (configs[0].max_tokens, configs[0].encoder_fingerprint):
            raise InputError(
                f'{name}: stage "{config.name}" was trained with texts of {config.max_tokens} tokens by '
                f"{config.encoder_name} ({config.encoder_fingerprint[:12]}), the first with {configs[0].max_tokens} by "
                f"{configs[0].encoder_name} ({configs[0].encoder_fingerprint[:12]}); train them with one encoder"
            )
        before = config.image_size
