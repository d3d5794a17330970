"""A cascade of stages. The only place that knows there are several; `folder` is where it is kept."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from imagen_jax.conditions import LowRes, Text
from imagen_jax.errors import InputError
from imagen_jax.sampling.arguments import check_count, check_prompts_argument, check_seed, is_whole
from imagen_jax.sampling.batches import sample_all
from imagen_jax.sampling.foreign_names import describe_unknown
from imagen_jax.sampling.images import to_uint8
from imagen_jax.sampling.placement import make_mesh, replicate
from imagen_jax.sampling.prompts import check_prompts
from imagen_jax.sampling.setting_values import one_each
from imagen_jax.sampling.settings import BY_FLAG, SETTINGS, SamplingSettings
from imagen_jax.sampling.stage import Stage
from imagen_jax.sampling.stage_config import StageConfig as StageConfig
from imagen_jax.sampling.stage_config import check_chain as check_chain
from imagen_jax.sampling.stage_config import make_stage as make_stage
from imagen_jax.text.embeddings import Embeddings
from imagen_jax.text.encoder import TextEncoder
from imagen_jax.text.t5_config import describe_width
from imagen_jax.text.tokenizer import check_captions
from imagen_jax.types import Params


class Cascade:
    """Text to images, stage by stage.

    Attributes:
      stages: `Stage`s by image size, ascending.
      configs: their `StageConfig`s.
    """

    def __init__(
        self,
        configs: Sequence[StageConfig],
        params: Sequence[Params | Callable[[], Params]],
        encoder: TextEncoder | Callable[[], TextEncoder],
        *,
        name: str = "cascade",
    ):
        """A cascade of stages, base first.

        Args:
          configs: of the stages.
          params: of the stages; a function is called when the stage first runs.
          encoder: of prompts; a function is called whenever there are prompts. What it returns is freed after that, and
            before it is called, what functions among `params` have returned is.
          name: for messages.

        Raises:
          InputError: the stages' sizes don't chain.
        """
        check_chain(configs, name)
        self.configs = tuple(configs)
        self.stages = {config.image_size: make_stage(config) for config in configs}
        self._given_params = dict(zip(self.stages, params, strict=True))
        self._loaded_params: dict[int, Params] = {}
        self._encoder = encoder

    def __call__(self, prompts: Sequence[str] | Embeddings, *, seed: int = 0, **kwargs: Any) -> np.ndarray:
        """Prompts -> uint8 [N,H,W,3] of the last stage run; keyword arguments as in `sample`."""
        return list(self.sample(prompts, seed=seed, **kwargs).values())[-1]

    def sample(
        self,
        prompts: Sequence[str] | Embeddings,
        *,
        seed: int = 0,
        first_index: int = 0,
        stop_at: int | None = None,
        negative_prompts: str | Sequence[str] | Embeddings | None = None,
        weak: "Cascade | None" = None,
        batch_size: int = 8,
        devices: int | None = None,
        image_shards: int | Sequence[int] = 1,
        log_stages: bool = False,
        given: Mapping[str, np.ndarray] | None = None,
        **overrides: Any,
    ) -> dict[int, np.ndarray]:
        """Samples one image a prompt. Image k depends on seed, k and its prompt, and not on the batch or the devices.

        Args:
          prompts: N captions, or their embeddings (`TextEncoder.embed`).
          seed: of all noise.
          first_index: the k of the first prompt, where a longer list is sampled in parts.
          stop_at: the image size to stop at; default the last stage's.
          negative_prompts: what guidance leads away from, in place of the null text: one for all, or one a prompt.
          weak: autoguidance: a cascade with the same networks and weaker parameters (an earlier checkpoint), which
            guidance leads away from.
          batch_size: images at a time, all devices together; at least one a device.
          devices, image_shards: see `meshes`.
          log_stages: log a line before each stage: which of how many it is, and what comes next.
          given: arrays [N,...] that conditions of the user's own are made of; default what these say themselves.
          overrides: see `settings`.

        Returns:
          uint8 [N,H,W,3] by image size, ascending.

        Raises:
          InputError: no prompts, embeddings of another encoder, a stage that isn't there, an argument of a wrong type
            or out of range, a `weak` cascade of other networks.
          NotFiniteError: a prediction was infinite or not a number; the message names the stage and the image.
        """
        prompts, negative_prompts, batch_size, last = _Arguments.checked(
            self, prompts, negative_prompts, weak=weak, stop_at=stop_at, batch_size=batch_size
        )
        seed, first_index = check_seed(seed), check_count("first_index", first_index, smallest=0, example="0")
        settings = self.settings(**overrides)
        meshes = self.meshes(devices=devices, image_shards=image_shards)
        self._check_against(negative_prompts, weak, settings[: last + 1])
        own = self._check_own_conditions(given, len(prompts))
        text, negative = self.embed_both(prompts, negative_prompts)
        base_key = jax.random.key(seed)
        indices = np.arange(first_index, first_index + len(prompts))
        result: dict[int, np.ndarray] = {}
        low_res: dict[str, np.ndarray] = {}
        for number, (size, stage) in enumerate(self.stages.items()):
            stage_key = jax.random.fold_in(base_key, number)
            if log_stages:
                logging.info("%s", self._describe_step(number, last, settings[number], len(prompts)))
            samples = sample_all(
                stage,
                self.params(size, meshes[number]),
                text,
                keys=jax.vmap(lambda index, key=stage_key: jax.random.fold_in(key, index))(indices),
                given=low_res | {name: array for name, array in own.items() if name in _names_given(stage)},
                settings=settings[number],
                negative=negative,
                weak_params=weak.params(size, meshes[number]) if weak and settings[number].guided else None,
                batch_size=batch_size,
                mesh=meshes[number],
                first_index=first_index,
            )
            low_res = {"low_res": samples}
            result[size] = to_uint8(samples)
            if number == last:
                break
        return result

    def _check_own_conditions(self, given: Mapping[str, Any] | None, count: int) -> dict[str, np.ndarray]:
        """What is given for conditions of the user's own, as arrays [N,...]."""
        there = sorted({name for stage in self.stages.values() for name in _names_given(stage)})
        arrays = {name: np.asarray(array) for name, array in (given or {}).items()}
        for name, array in arrays.items():
            if name not in there:
                raise InputError(f'given: "{name}" is of no condition of any stage; there are: {", ".join(there)}')
            if not array.ndim or len(array) != count:
                raise InputError(f'given: "{name}" must have one row a prompt, {count} (got {list(array.shape)})')
        return arrays

    def _describe_step(self, number: int, last: int, settings: SamplingSettings, images: int) -> str:
        sizes = list(self.stages)
        what = f"{sizes[number - 1]} -> {sizes[number]} px" if number else f"{sizes[number]} px"
        steps = len(self.stages[sizes[number]].noise_levels(settings))
        next_one = f"; then {sizes[number + 1]} px" if number < last else ""
        compiles = "" if number else " (each stage's first batch compiles, which may take minutes)"
        return (
            f"stage {number + 1} of {last + 1}: {what}, {images} image{'s' * (images != 1)}, "
            f"{steps} step{'s' * (steps != 1)}{next_one}{compiles}"
        )

    def embed(self, prompts: Sequence[str] | Embeddings) -> Embeddings:
        """Prompts as embeddings; embeddings stay what they are.

        Raises:
          InputError: no prompts, or embeddings that these stages weren't trained with.
          NotFiniteError: an embedding is infinite or not a number.
        """
        if not isinstance(prompts, Embeddings):
            check_captions(prompts)
            encoder = self._encoder
            if not isinstance(encoder, TextEncoder):
                self._loaded_params.clear()
                encoder = encoder()
            if unseen := encoder.describe_unseen(prompts):
                logging.warning("%s", unseen)
            prompts = encoder.embed(prompts)
        _check_embeddings(prompts, self.configs[0])
        return prompts

    def embed_both(
        self, prompts: Sequence[str] | Embeddings, negative: Sequence[str] | Embeddings | None
    ) -> tuple[Embeddings, Embeddings | None]:
        """Prompts and negative prompts, if any, as `embed`, by one load of the encoder: N and, of one or N, N."""
        if negative is None:
            return self.embed(prompts), None
        count = len(prompts)
        if isinstance(prompts, Embeddings) or isinstance(negative, Embeddings):
            text, negative = self.embed(prompts), self.embed(negative)
        else:
            both = self.embed([*prompts, *negative])
            text, negative = both.take(range(count)), both.take(range(count, len(both)))
        return text, negative.take([0] * count) if len(negative) == 1 else negative

    def params(self, image_size: int, mesh: Mesh | None = None) -> Params:
        """The parameters of the stage of `image_size`; on all devices of `mesh`, if given, and from then on."""
        if image_size not in self._loaded_params:
            given = self._given_params[image_size]
            self._loaded_params[image_size] = given() if callable(given) else given
        if mesh is not None:
            self._loaded_params[image_size] = replicate(self._loaded_params[image_size], mesh)
        return self._loaded_params[image_size]

    def meshes(self, *, devices: int | None = None, image_shards: int | Sequence[int] = 1) -> list[Mesh]:
        """What each stage samples on.

        Args:
          devices: how many of this process's, which divide a batch among them; None: all.
          image_shards: how many of them share each image, by rows, for memory: one number for all stages, or a list
            with one a stage.

        Raises:
          InputError: there aren't so many devices, or they or a stage's images can't be divided so.
        """
        result = []
        shards_each = one_each("image_shards", image_shards, [1] * len(self.stages))
        for stage, shards in zip(self.stages.values(), shards_each, strict=True):
            try:
                result.append(make_mesh(devices, image_shards=shards, coarsest_rows=stage.coarsest_rows))
            except InputError as error:
                raise InputError(f"stage of {stage.image_size} px: {error}") from None
        return result

    def sizes(self, stop_at: int | None = None) -> list[int]:
        """Returns the image sizes of the stages that run, ascending.

        Args:
          stop_at: the size of the last of them; None: all run.

        Raises:
          InputError: there is no stage of that size.
        """
        sizes = list(self.stages)
        if stop_at is None:
            return sizes
        if not is_whole(stop_at) or stop_at not in sizes:
            raise InputError(f"stop_at must be the size of a stage: {', '.join(map(str, sizes))} (got {stop_at!r:.80})")
        return sizes[: sizes.index(stop_at) + 1]

    def settings(self, **overrides: Any) -> list[SamplingSettings]:
        """What each stage samples with.

        Args:
          overrides: fields of `SamplingSettings` in place of the stages' own (and `guidance`, `steps` for
            guidance_weight, num_steps): one value for all stages, or a list with one a stage, in which None is the
            stage's own: see `setting_values.one_each`. None: no override.

        Raises:
          InputError: no such setting, or a value out of range.
        """
        given = {}
        for alias, value in overrides.items():
            name = BY_FLAG.get(alias, alias)
            if name not in SETTINGS:
                names = sorted({*SETTINGS, *BY_FLAG})
                hint = describe_unknown(alias, [*names, *_ARGUMENTS])
                raise InputError(f'unknown sampling setting "{alias}"; there are: {", ".join(names)}.{hint}')
            if value is not None:
                if name in given:
                    raise InputError(f"{alias} and {name} are one setting; give one of them")
                given[name] = one_each(name, value, [None] * len(self.configs))
        result = []
        for number, (config, stage) in enumerate(zip(self.configs, self.stages.values(), strict=True)):
            own = {name: values[number] for name, values in given.items() if values[number] is not None}
            if own.keys() & {"num_steps", "spacing"}:
                own.setdefault("times", ())
            try:
                result.append(dataclasses.replace(stage.settings, **own))
                stage.noise_levels(result[-1])
            except InputError as error:
                raise InputError(f"stage of {config.image_size} px: {error}") from None
            if config.low_res_size and result[-1].aug_level > config.max_aug_level:
                raise InputError(
                    f"stage of {config.image_size} px: it was trained with augmentation levels of up to "
                    f"{config.max_aug_level:g}, and aug_level = {result[-1].aug_level:g} is above"
                )
        return result

    def _check_against(self, negative: Any, weak: "Cascade | None", settings: Sequence[SamplingSettings]) -> None:
        if negative is not None and weak is not None:
            raise InputError("guidance leads away from negative prompts or from a weak cascade; give one of them")
        if (negative is not None or weak is not None) and not any(each.guided for each in settings):
            raise InputError(
                "a negative prompt or a weak cascade does nothing without guidance; every stage's weight is 1: set one "
                "above it (--guidance=3)"
            )
        if weak is None:
            return
        for config, used in zip(self.configs, settings, strict=False):
            other = next((other for other in weak.configs if other.image_size == config.image_size), None)
            if not used.guided:
                continue
            if other is None:
                raise InputError(f"the weak cascade has no stage of {config.image_size} px; autoguidance needs one")
            for what, (mine, theirs) in _compared(config, other).items():
                if mine != theirs:
                    raise InputError(
                        f"the weak cascade's stage of {config.image_size} px has another {what}: {theirs!r} in place "
                        f"of {mine!r}; autoguidance needs the same network, trained less"
                    )


def _names_given(stage: Stage) -> set[str]:
    """The arrays that conditions of the user's own are made of; text and low-resolution images have their own ways."""
    own = (condition for condition in stage.conditions if not isinstance(condition, Text | LowRes))
    return {name for condition in own for name in condition.given(stage.shape)}


def _compared(a: StageConfig, b: StageConfig) -> dict[str, tuple[Any, Any]]:
    """What two sets of parameters of one network share."""
    fields = ("schedule", "prediction", "max_tokens", "encoder_fingerprint", "conditions")
    # How a network is computed is no part of what it is.
    mine, theirs = ({**config.model, "dtype": None, "remat": None} for config in (a, b))
    return {"model": (mine, theirs), **{field: (getattr(a, field), getattr(b, field)) for field in fields}}


def _check_embeddings(text: Embeddings, config: StageConfig) -> None:
    if len(text) == 0:
        raise InputError("there are no embeddings; expected at least one text's")
    if text.encoder_fingerprint != config.encoder_fingerprint:
        raise InputError(
            f"the embeddings are by {text.encoder_name}, {describe_width(text.width)}, and the cascade was trained "
            f"with {config.encoder_name}, {describe_width(config.text_width)}; compute them with that encoder"
        )
    if text.max_length != config.max_tokens:
        raise InputError(
            f"the embeddings are of texts cut to {text.max_length} tokens, and the cascade was trained with "
            f"{config.max_tokens}; compute them with max_length={config.max_tokens}"
        )


class _Arguments(NamedTuple):
    """Arguments of `Cascade.sample`, of the types that they are used as."""

    prompts: Sequence[str] | Embeddings
    negative: Sequence[str] | Embeddings | None
    batch_size: int
    last: int

    @classmethod
    def checked(
        cls, cascade: Cascade, prompts: Any, negative: Any, *, weak: Any, stop_at: Any, batch_size: Any
    ) -> "_Arguments":
        """Raises InputError for a wrong type, a wrong count, or a stage that isn't there."""
        prompts = check_prompts_argument("prompts", prompts)
        if not isinstance(prompts, Embeddings):
            check_prompts(prompts)
        if isinstance(negative, str):
            negative = [negative]
        if negative is not None:
            negative = check_prompts_argument("negative_prompts", negative)
            if len(negative) not in (1, len(prompts)):
                raise InputError(
                    f"negative prompts: one for all, or one for each of {len(prompts)} (got {len(negative)})"
                )
        if weak is not None and not isinstance(weak, Cascade):
            raise InputError(f"weak must be a cascade, by load_cascade (got {weak!r:.80})")
        last = len(cascade.sizes(stop_at)) - 1
        return cls(prompts, negative, check_count("batch_size", batch_size, example="8"), last)


# Of `Cascade.sample`, besides the settings: what a wrong name may have meant.
_ARGUMENTS = (
    *("prompts", "seed", "first_index", "stop_at", "negative_prompts", "weak", "batch_size", "devices"),
    *("image_shards", "log_stages", "given"),
)
