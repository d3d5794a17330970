"""One stage of a cascade: from its conditions to images of one resolution."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from imagen_jax.conditions import Condition, inputs
from imagen_jax.conditions.keys import sampling_keys
from imagen_jax.diffusion import denoise, gaussian
from imagen_jax.diffusion.guidance import Branch, ByLevel, check_weights, guide
from imagen_jax.diffusion.samplers import Denoiser, check_levels, find_sampler
from imagen_jax.diffusion.schedules import make_schedule
from imagen_jax.diffusion.spacings import at_times, noise_levels
from imagen_jax.diffusion.threshold import THRESHOLDS
from imagen_jax.errors import InputError
from imagen_jax.models.base import check_conditions, size_multiple
from imagen_jax.registry import lookup
from imagen_jax.sampling.control import Control, check_layers, entered
from imagen_jax.sampling.finite import check_finite, keep_not_finite
from imagen_jax.sampling.placement import divide, make_mesh, replicate, split_rows
from imagen_jax.sampling.settings import SamplingSettings
from imagen_jax.types import Array, Conditions, DenoiseFn, Params


class Start(NamedTuple):
    """Where sampling starts, in place of pure noise: images, with the noise of a time added to them (SDEdit).

    Attributes:
      image: [B,H,W,C] float32 in [-1, 1].
      time: in (0, 1]; the first noise level is the first of the settings' that is not above this time's.
    """

    image: Array
    time: float


class Wrapper(Protocol):
    """A change of what the guided network predicts, such as pixels that are known. A pytree of arrays [B,...].

    Attributes:
      after_threshold: whether it is applied to x_hat as thresholding leaves it, or to what is thresholded then.
    """

    after_threshold: bool

    def __call__(self, denoise_fn: DenoiseFn, /) -> DenoiseFn:
        """Returns the changed denoise_fn."""
        ...


class Stage:
    """A network with what is needed to sample from it; parameters are passed in, so that training can sample too.

    Attributes:
      model: the network.
      conditions: what it is told.
      shape: of a sample, (H, W, C) for an image.
      settings: how it samples unless told otherwise.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        conditions: Sequence[Condition],
        shape: tuple[int, ...],
        schedule: str,
        prediction: str,
        settings: SamplingSettings,
    ):
        """See the class and `diffusion`.

        Raises:
          InputError: an unknown schedule or prediction type, or conditions that the network doesn't know or lacks.
        """
        self.model, self.conditions, self.shape, self.settings = model, tuple(conditions), shape, settings
        check_conditions(model, inputs.network_shapes(conditions, shape)["conditions"])
        self._schedule = make_schedule(schedule, image_size=self.image_size)
        lookup(denoise.TO_X, prediction, what="prediction type")
        self._prediction = prediction
        self._compiled = jax.jit(self._sample, static_argnames=("of_branches", "start_time", "control", "mesh"))

    @property
    def image_size(self) -> int:
        """Rows of an image."""
        return self.shape[0]

    @property
    def coarsest_rows(self) -> int:
        """Rows of an image at the network's coarsest level."""
        return self.image_size // size_multiple(self.model)

    def noise_levels(self, settings: SamplingSettings | None = None, *, start_time: float | None = None) -> np.ndarray:
        """logsnr [N] at which the network is evaluated.

        Args:
          settings: in place of the stage's own.
          start_time: of `Start`; None: from pure noise.

        Raises:
          InputError: the settings don't fit each other or the schedule: steps and spacing, sampler and levels, a
            guidance interval that holds none of the levels, or a start after the last of them.
        """
        settings = settings or self.settings
        logsnrs = noise_levels(
            self._schedule, num_steps=settings.num_steps, spacing=settings.spacing, times=settings.times
        )
        if not np.all(np.diff(logsnrs) > 0):
            raise InputError(
                "two of the noise levels are the same in float32, and a step between them divides by zero; take fewer "
                f"steps, or times that lie farther apart (got {len(logsnrs)} levels)"
            )
        if start_time is not None:
            logsnrs = logsnrs[logsnrs >= self._start_level(start_time)]
        check_levels(settings.sampler, logsnrs, from_noise=start_time is None)
        low, high = self._guided_levels(settings)
        if settings.guided and not np.any((low <= logsnrs) & (logsnrs <= high)):
            raise InputError(
                f"guidance_interval = {settings.guidance_interval} holds none of the {len(logsnrs)} noise levels; "
                "widen it, take more steps, or set the guidance weight to 1"
            )
        return logsnrs

    def _start_level(self, time: float) -> float:
        if not 0 < time <= 1:
            raise InputError(f"the time of a start must be above 0 and at most 1, which is pure noise (got {time!r})")
        # A level at that very time is one of them, however it is rounded.
        return float(at_times(self._schedule, (time,))[0]) - 1e-4

    def _guided_levels(self, settings: SamplingSettings) -> tuple[float, float]:
        """The interval of guidance in logsnr: from, to."""
        if settings.guidance_interval == (0.0, 1.0):
            return -np.inf, np.inf
        high, low = at_times(self._schedule, settings.guidance_interval)
        return float(low), float(high)

    def sample(
        self,
        params: Params,
        given: Conditions,
        *,
        keys: jax.Array,
        settings: SamplingSettings | None = None,
        against: Conditions | None = None,
        weak_params: Params | None = None,
        branches: Sequence[Branch] | None = None,
        start: Start | None = None,
        wrappers: Sequence[Wrapper] = (),
        control: Control | None = None,
        mesh: Mesh | None = None,
        labels: Sequence[str] = (),
    ) -> np.ndarray:
        """Samples a batch in one compiled program.

        It is compiled once for each batch size, mesh, control, start time, number of branches and settings; other
        weights of guidance and other augmentation levels are the same program, so that sweeping them costs none.
        What the devices don't divide is filled up, and what was filled up is left out of the result.

        Args:
          params: of the network.
          given: what the conditions are made of, arrays [B,...]: the captions, and of a super-resolution stage the
            images of the stage before, low_res [B,h,w,3] float32 in [-1, 1].
          keys: [B] PRNG keys, one an image: what an image becomes does not depend on its batch.
          settings: in place of the stage's own.
          against: what guidance leads away from, in place of the conditions' null, as a negative prompt: arrays
            [B,...] that take the place of what the network sees, by name.
          weak_params: what guidance leads away from in place of the null: the same conditions, other parameters.
          branches: guidance by these in place of the two that follow from all the above. `conditions`: as `against`;
            None: the null. Their weights take the place of the settings' one, and `params` None is `params`.
          start: in place of pure noise.
          wrappers: of the guided network, the innermost first.
          control: of the network's layers.
          mesh: of the devices (`placement.make_mesh`); default one device.
          labels: what each image is called in a message; default "image 0", "image 1", ...

        Returns:
          [B,H,W,3] float32 in [-1, 1].

        Raises:
          InputError: see `noise_levels`; a condition that isn't given, or one that the stage doesn't have, in branches
            too; branches whose weights don't have the sum 1; control of a layer that isn't there.
          NotFiniteError: a prediction was infinite or not a number, at any step; the message names the image.
        """
        given = inputs.with_defaults(self.conditions, given, count=len(keys), shape=self.shape)
        inputs.check_given(self.conditions, given, shape=self.shape)
        mesh = mesh or make_mesh(1)
        settings = settings or self.settings
        if branches is None:
            branches = _branches(settings, against=against, weak_params=weak_params)
        check_weights(branches)
        seen = inputs.network_shapes(self.conditions, self.shape)["conditions"]
        for branch in branches:
            _check_replacement(branch.conditions or {}, seen)
        check_layers(control, self.model, inputs.network_shapes(self.conditions, self.shape))
        time = None if start is None else float(start.time)
        # Each set of parameters once: by this the compiled program knows which branches share one.
        others, of_branches = _distinct([params, *(each.params or params for each in branches)])
        batch = divide(
            (given, keys, [each.conditions for each in branches], None if start is None else start.image, wrappers),
            mesh,
        )
        samples = self._compiled(
            *batch,
            [np.float32(each.weight) for each in branches],
            replicate(others, mesh),
            settings,
            of_branches=tuple(of_branches),
            start_time=time,
            control=control,
            mesh=mesh,
        )
        samples = np.asarray(samples)[: len(keys)]
        check_finite(samples, image_size=self.image_size, labels=labels, settings=settings)
        return samples

    def _sample(
        self,
        given: Conditions,
        keys: jax.Array,
        others: Sequence[Conditions | None],
        image: jax.Array | None,
        wrappers: Sequence[Wrapper],
        weights: Sequence[jax.Array],
        params: Sequence[Params],
        settings: SamplingSettings,
        *,
        of_branches: tuple[int, ...],
        start_time: float | None,
        control: Control | None,
        mesh: Mesh,
    ) -> jax.Array:
        shape = self.shape
        logsnrs = self.noise_levels(settings, start_time=start_time)
        z_init = jax.vmap(lambda key: jax.random.normal(key, shape))(sampling_keys(keys, "start"))
        if image is not None:
            z_init = gaussian.diffuse(x=image, eps=z_init, logsnr=jnp.full(keys.shape, logsnrs[0], jnp.float32))
        seen = inputs.for_sampling(self.conditions, given, keys, shape=shape, settings=settings)
        seen = {name: split_rows(x, mesh) if x.shape[1:3] == shape[:2] else x for name, x in seen.items()}
        branches = [
            Branch(
                weight,
                inputs.null(self.conditions, seen) if other is None else seen | dict(other),
                params[number],
            )
            for weight, other, number in zip(weights, others, of_branches, strict=True)
        ]
        sampler = partial(find_sampler(settings.sampler).sample, **settings.sampler_settings())
        with entered(control):
            denoise_fn = self._denoiser(branches, wrappers, settings, mesh)
            samples = sampler(denoise_fn, sampling_keys(keys, "sampler"), z_init, logsnrs=logsnrs)
        return jnp.clip(samples, -1.0, 1.0)

    def _denoiser(
        self, branches: Sequence[Branch], wrappers: Sequence[Wrapper], settings: SamplingSettings, mesh: Mesh
    ) -> Denoiser:
        """From the inside out: network, guidance, wrappers, threshold, wrappers."""

        def network(params: Params | None, conditions: Conditions) -> DenoiseFn:
            def apply(z: jax.Array, logsnr: jax.Array) -> jax.Array:
                variables: Any = {"params": params}
                return cast(jax.Array, self.model.apply(variables, split_rows(z, mesh), logsnr, conditions))

            return denoise.make_denoise_fn(apply, prediction=self._prediction)

        def wrapped(denoise_fn: DenoiseFn) -> DenoiseFn:
            for wrapper in (each for each in wrappers if not each.after_threshold):
                denoise_fn = wrapper(denoise_fn)
            # Clipping would make an ordinary white or black of an infinity.
            denoise_fn = keep_not_finite(_threshold(settings), denoise_fn)
            for wrapper in (each for each in wrappers if each.after_threshold):
                denoise_fn = wrapper(denoise_fn)
            return denoise_fn

        first = branches[0]
        plain = wrapped(network(first.params, first.conditions or {}))
        if len(branches) == 1:
            return plain
        guided = wrapped(guide(network, branches, rescale=settings.guidance_rescale))
        return ByLevel([(*self._guided_levels(settings), guided)], otherwise=plain)


def _branches(
    settings: SamplingSettings, *, against: Conditions | None, weak_params: Params | None
) -> Sequence[Branch]:
    if not settings.guided:
        return [Branch(1.0, {})]
    # Subtracted as a device would.
    weight = np.float32(settings.guidance_weight)
    other = Branch(np.float32(1.0) - weight, against, weak_params)
    return [Branch(weight, {}), other if weak_params is None else other._replace(conditions={})]


def _check_replacement(conditions: Conditions, seen: Conditions) -> None:
    for name, array in conditions.items():
        if name not in seen:
            raise InputError(f'guidance: the network sees no "{name}"; it sees {", ".join(sorted(seen)) or "nothing"}')
        if tuple(array.shape[1:]) != tuple(seen[name].shape[1:]):
            wanted = ",".join(map(str, seen[name].shape[1:]))
            raise InputError(
                f'guidance: "{name}" must be [B,{wanted}], as the network sees it (got {list(array.shape)})'
            )


def _distinct(trees: Sequence[Params]) -> tuple[list[Params], list[int]]:
    """The objects among all of these, each once, and of all but the first which of them it is."""
    distinct = list({id(tree): tree for tree in trees}.values())
    places = {id(tree): place for place, tree in enumerate(distinct)}
    return distinct, [places[id(tree)] for tree in trees[1:]]


def _threshold(settings: SamplingSettings) -> Callable[[DenoiseFn], DenoiseFn]:
    own = {"percentile": settings.threshold_percentile, "cap": settings.threshold_cap}
    return partial(THRESHOLDS[settings.threshold], **own if settings.threshold == "dynamic" else {})
