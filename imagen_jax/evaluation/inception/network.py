"""The Inception network of FID ("inception-2015-12-05"), as ported to PyTorch by pytorch-fid.

Inception v3 (Szegedy et al., arXiv 1512.00567) with 1008 classes and four departures from torchvision's: the average
pools of Mixed_5b-d, 6b-e and 7b do not count padding, and the pool of Mixed_7c is a max pool. Batch normalisation is
part of the convolutions: `inception_weights` folds it in.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from imagen_jax.types import Array

IMAGE_SIZE = 299
NUM_CLASSES = 1008
# What can be taken out of the network -> its width. "logits_unbiased" is what Inception Score is made of.
TAPS = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits": NUM_CLASSES, "logits_unbiased": NUM_CLASSES}

_PRECISION = jax.lax.Precision.HIGHEST


class Inception(nn.Module):
    """Images float32 [N,299,299,3], scaled by the flavour's own rule -> all `TAPS`, float32 [N,width] each.

    The first four are means over the positions of a feature map: after the first max pool, after the second, after
    Mixed_6e, and after Mixed_7c.
    """

    @nn.compact
    def __call__(self, images: Array) -> dict[str, jax.Array]:
        x = _conv("Conv2d_1a_3x3", 32, (3, 3), stride=2)(images)
        x = _conv("Conv2d_2a_3x3", 32, (3, 3), padding="VALID")(x)
        x = _conv("Conv2d_2b_3x3", 64, (3, 3))(x)
        x = _shrink(x)
        taps = {"64": _mean(x)}
        x = _conv("Conv2d_3b_1x1", 80)(x)
        x = _conv("Conv2d_4a_3x3", 192, (3, 3), padding="VALID")(x)
        x = _shrink(x)
        taps["192"] = _mean(x)
        x = _MixedA(pool_width=32, name="Mixed_5b")(x)
        x = _MixedA(pool_width=64, name="Mixed_5c")(x)
        x = _MixedA(pool_width=64, name="Mixed_5d")(x)
        x = _MixedB(name="Mixed_6a")(x)
        x = _MixedC(width=128, name="Mixed_6b")(x)
        x = _MixedC(width=160, name="Mixed_6c")(x)
        x = _MixedC(width=160, name="Mixed_6d")(x)
        x = _MixedC(width=192, name="Mixed_6e")(x)
        taps["768"] = _mean(x)
        x = _MixedD(name="Mixed_7a")(x)
        x = _MixedE(pool=average_pool, name="Mixed_7b")(x)
        x = _MixedE(pool=max_pool, name="Mixed_7c")(x)
        taps["2048"] = _mean(x)
        taps["logits_unbiased"] = nn.Dense(NUM_CLASSES, use_bias=False, precision=_PRECISION, name="fc")(taps["2048"])
        bias = self.param("fc_bias", nn.initializers.zeros, (NUM_CLASSES,))
        taps["logits"] = taps["logits_unbiased"] + bias[None]
        return taps


def average_pool(x: jax.Array) -> jax.Array:
    """Means of 3 x 3 neighbours, at the border of fewer."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x: jax.Array) -> jax.Array:
    """Maxima of 3 x 3 neighbours."""
    return nn.max_pool(x, (3, 3), padding="SAME")


class _MixedA(nn.Module):
    pool_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = _conv("branch1x1", 64)(x)
        five = _conv("branch5x5_2", 64, (5, 5))(_conv("branch5x5_1", 48)(x))
        three = _conv("branch3x3dbl_2", 96, (3, 3))(_conv("branch3x3dbl_1", 64)(x))
        three = _conv("branch3x3dbl_3", 96, (3, 3))(three)
        pooled = _conv("branch_pool", self.pool_width)(average_pool(x))
        return jnp.concatenate([one, five, three, pooled], axis=-1)


class _MixedB(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv("branch3x3", 384, (3, 3), stride=2)(x)
        double = _conv("branch3x3dbl_2", 96, (3, 3))(_conv("branch3x3dbl_1", 64)(x))
        double = _conv("branch3x3dbl_3", 96, (3, 3), stride=2)(double)
        return jnp.concatenate([three, double, _shrink(x)], axis=-1)


class _MixedC(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = _conv("branch1x1", 192)(x)
        seven = _conv("branch7x7_2", self.width, (1, 7))(_conv("branch7x7_1", self.width)(x))
        seven = _conv("branch7x7_3", 192, (7, 1))(seven)
        double = _conv("branch7x7dbl_2", self.width, (7, 1))(_conv("branch7x7dbl_1", self.width)(x))
        double = _conv("branch7x7dbl_3", self.width, (1, 7))(double)
        double = _conv("branch7x7dbl_4", self.width, (7, 1))(double)
        double = _conv("branch7x7dbl_5", 192, (1, 7))(double)
        pooled = _conv("branch_pool", 192)(average_pool(x))
        return jnp.concatenate([one, seven, double, pooled], axis=-1)


class _MixedD(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = _conv("branch3x3_2", 320, (3, 3), stride=2)(_conv("branch3x3_1", 192)(x))
        seven = _conv("branch7x7x3_2", 192, (1, 7))(_conv("branch7x7x3_1", 192)(x))
        seven = _conv("branch7x7x3_3", 192, (7, 1))(seven)
        seven = _conv("branch7x7x3_4", 192, (3, 3), stride=2)(seven)
        return jnp.concatenate([three, seven, _shrink(x)], axis=-1)


class _MixedE(nn.Module):
    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = _conv("branch1x1", 320)(x)
        three = _conv("branch3x3_1", 384)(x)
        double = _conv("branch3x3dbl_2", 384, (3, 3))(_conv("branch3x3dbl_1", 448)(x))
        branches = [
            one,
            _conv("branch3x3_2a", 384, (1, 3))(three),
            _conv("branch3x3_2b", 384, (3, 1))(three),
            _conv("branch3x3dbl_3a", 384, (1, 3))(double),
            _conv("branch3x3dbl_3b", 384, (3, 1))(double),
            _conv("branch_pool", 192)(self.pool(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


def _conv(
    name: str, width: int, kernel: tuple[int, int] = (1, 1), *, stride: int = 1, padding: str | None = None
) -> Callable[[Array], jax.Array]:
    """Convolution and ReLU. What shrinks by a stride has no padding; the rest keeps its size unless told."""
    padding = padding or ("SAME" if stride == 1 else "VALID")
    conv = nn.Conv(width, kernel, strides=stride, padding=padding, precision=_PRECISION, name=name)
    return lambda x: nn.relu(conv(x))


def _shrink(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


def _mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2))
