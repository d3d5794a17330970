"""From a source's raw image to a stage's input. numpy only; images are [H, W, 3], RGB."""

import functools

import numpy as np

from imagen_jax.errors import InputError


def area_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` resized by averaging over the area that each output pixel covers (a box filter), which cannot alias.

    The mean over the image is preserved for any ratio. Enlarging gives flat squares with blended borders.

    Args:
      image: [H, W, C], any real dtype and range.

    Returns:
      float32 [height, width, C], in the range of `image`.
    """
    image = image.astype(np.float32)
    in_height, in_width, channels = image.shape
    if in_height % height == 0 and in_width % width == 0:
        # Sums of whole pixels are exact for uint8. Adding slices is 12 times as fast as mean(axis=(1, 3)).
        rows_per_block, columns_per_block = in_height // height, in_width // width
        rows = image.reshape(height, rows_per_block, in_width, channels)
        sums = functools.reduce(np.add, (rows[:, i] for i in range(rows_per_block)))
        columns = sums.reshape(height, width, columns_per_block, channels)
        sums = functools.reduce(np.add, (columns[:, :, i] for i in range(columns_per_block)))
        return sums / np.float32(rows_per_block * columns_per_block)
    rows = _box_weights(in_height, height)
    columns = _box_weights(in_width, width)
    resized = np.einsum("yh,hwc->ywc", rows, image, optimize=True)
    resized = np.einsum("xw,ywc->yxc", columns, resized, optimize=True)
    # Rounding of the weights must not push white above white.
    return np.clip(resized, image.min(), image.max())


@functools.lru_cache(maxsize=64)
def _box_weights(num_in: int, num_out: int) -> np.ndarray:
    """float32 [num_out, num_in]: the fraction of output pixel o that input pixel i covers; rows sum to 1."""
    edges = np.arange(num_out + 1) * num_in / num_out
    pixels = np.arange(num_in)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(overlap, 0, None) * num_out / num_in).astype(np.float32)


def full_image(image: np.ndarray, *, image_size: int) -> np.ndarray:
    """The centre square of uint8 [H, W, 3], area-resized to float32 [image_size, image_size, 3] in [-1, 1].

    Raises:
      InputError: the image is not uint8 [H, W, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(f"an image is {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3] (RGB, 0..255)")
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return area_resize(square, image_size, image_size) / np.float32(127.5) - np.float32(1)


def stage_input(
    full: np.ndarray, *, low_res_size: int | None = None, crop_size: int | None = None, rng: np.random.Generator | None
) -> dict[str, np.ndarray]:
    """What one stage trains on, from the whole image at the stage's size.

    Args:
      full: float32 [S, S, 3] in [-1, 1].
      low_res_size: for super-resolution, the side of the low-resolution version of the whole image; it divides S.
      crop_size: the side of a random square crop, a multiple of S / low_res_size. The crop's offset is one too, so that
        low_res of the crop is the crop of low_res.
      rng: draws the crop; used only with `crop_size`.

    Returns:
      image: float32 [S, S, 3], or [crop_size, crop_size, 3], in [-1, 1].
      low_res (only with `low_res_size`): float32 [h, h, 3] in [-1, 1], h = low_res_size, or with a crop
        crop_size * low_res_size / S.

    Raises:
      InputError: see `check_sizes`.
    """
    image_size = full.shape[0]
    check_sizes(image_size, low_res_size=low_res_size, crop_size=crop_size)
    factor = image_size // low_res_size if low_res_size else 1
    if crop_size is not None:
        if rng is None:
            raise ValueError("a random crop needs rng")
        top, left = factor * rng.integers(0, (image_size - crop_size) // factor, size=2, endpoint=True)
        full = full[top : top + crop_size, left : left + crop_size]
    if low_res_size is None:
        return {"image": full}
    side = full.shape[0] // factor
    return {"image": full, "low_res": area_resize(full, side, side)}


def prepare(
    image_uint8: np.ndarray,
    *,
    image_size: int,
    low_res_size: int | None = None,
    crop_size: int | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, np.ndarray]:
    """`stage_input` of `full_image`: uint8 [H, W, 3] -> {"image": ..., "low_res": ...}, float32 in [-1, 1].

    An image smaller than `image_size` is enlarged, which teaches a model blur: choose sources that are large enough.

    Raises:
      InputError: see `full_image` and `check_sizes`.
    """
    full = full_image(image_uint8, image_size=image_size)
    return stage_input(full, low_res_size=low_res_size, crop_size=crop_size, rng=rng)


def check_sizes(image_size: int, *, low_res_size: int | None, crop_size: int | None) -> None:
    """Checks a stage's sizes against each other.

    Raises:
      InputError: a size is not positive, low_res_size doesn't divide image_size, or crop_size is above image_size or
        not a multiple of image_size / low_res_size.
    """
    for name, size in (("image_size", image_size), ("low_res_size", low_res_size), ("crop_size", crop_size)):
        if size is not None and size < 1:
            raise InputError(f"{name} must be at least 1 (got {size})")
    if low_res_size is not None and image_size % low_res_size:
        raise InputError(f"low_res_size {low_res_size} must divide image_size {image_size}")
    if crop_size is None:
        return
    if crop_size > image_size:
        raise InputError(f"crop_size {crop_size} must be at most image_size {image_size}")
    factor = image_size // low_res_size if low_res_size else 1
    if crop_size % factor:
        nearest = max(factor, round(crop_size / factor) * factor)
        raise InputError(
            f"crop_size {crop_size} must be a multiple of image_size / low_res_size = {image_size} / {low_res_size} = "
            f"{factor}; the nearest is {nearest}"
        )
