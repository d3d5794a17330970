"""First super-resolution stage (4x) on the emoji data set.

    :demo  16 -> 64 px, for 2 CPU cores
           python -m imagen_jax.train --config=configs/emoji_sr1.py:demo --workdir=demo/sr1
    :paper, :modern
           the demo's with those recipes (configs/recipes.py). After 500 steps :modern is grainy: eps and v must give
           back the noise of 2 x 2 pixels, which 16 channels can't carry through the first strided convolution
           (--config.model.channels=32: less so, at 3 times the cost); the paper's 128 channels can
    :full  64 -> 256 px, for an accelerator
           python -m imagen_jax.train --config=configs/emoji_sr1.py:full --workdir=runs/emoji/sr1

Predicts x as a residual on the upsampled input, with plain squared error: on few steps far ahead of eps and v, which
spend them on learning to copy the input.
"""

from configs import recipes
from configs.emoji_base import DEMO_PROMPTS
from imagen_jax.config import base_config, choose_variant


def _demo(config):
    config.data.source = "emoji/food:train"
    config.data.text_store = "demo/text"
    config.data.text_encoder = "demo/encoder"
    config.data.image_size, config.data.low_res_size = 64, 16
    config.data.batch_size = 16
    config.data.max_tokens = 24
    config.model.update(
        channels=16, channel_mults=(1, 2, 4), num_blocks=(1, 2, 2), attention=("none", "none", "joint"), num_heads=2,
        dtype="float32",
    )  # fmt: skip
    config.optimizer.update(learning_rate=2e-3, warmup_steps=50, b2=0.99)
    config.diffusion.max_aug_level = 0.3
    config.ema_decay = 0.99
    config.train.update(num_steps=1_700, log_every=50, checkpoint_every=425, sample_every=425, keep_checkpoints=2)
    config.sampling.update(num_steps=8, threshold="static")


def _paper(config):
    _demo(config)
    recipes.paper(config)
    config.model.low_res_residual = False


def _modern(config):
    _demo(config)
    recipes.modern(config, guidance_weight=1.5)
    config.model.low_res_residual = False


def _full(config):
    config.data.source = "emoji:train"
    config.data.text_store = "runs/emoji/text"
    config.data.text_encoder = "runs/emoji/encoder"
    config.data.image_size, config.data.low_res_size = 256, 64
    config.data.batch_size = 64
    config.data.max_tokens = 32
    config.model.update(channels=64, channel_mults=(1, 2, 4, 8), num_blocks=(2, 2, 4, 4))
    config.optimizer.update(learning_rate=3e-4, warmup_steps=1_000, b2=0.99)
    config.ema_decay = 0.999
    config.train.update(num_steps=40_000, checkpoint_every=2_000, sample_every=2_000)
    config.sampling.update(num_steps=32, threshold="static")


def get_config(arg="demo"):
    config = base_config()
    config.prompts = DEMO_PROMPTS
    config.model.update(name="efficient_unet", low_res_residual=True)
    config.diffusion.update(prediction="x", weighting="plain")
    choose_variant(arg, {"demo": _demo, "paper": _paper, "modern": _modern, "full": _full})(config)
    return config
