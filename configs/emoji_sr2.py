"""Second super-resolution stage (4x) on the emoji data set: trained on crops, sampled on whole images.

:demo  64 -> 256 px, on crops of 64 px, for 2 CPU cores
       python -m imagen_jax.train --config=configs/emoji_sr2.py:demo --workdir=demo/sr2
:paper, :modern
       the demo's with those recipes (configs/recipes.py); not trained by us yet. emoji_sr1.py says why 16 channels
       are few for them
:full  256 -> 1024 px, on crops of 256 px, for an accelerator; it wants a text store of emoji/1024:train
       python -m imagen_jax.train --config=configs/emoji_sr2.py:full --workdir=runs/emoji/sr2
"""

from configs import recipes
from configs.emoji_base import DEMO_PROMPTS
from imagen_jax.config import base_config, choose_variant


def _demo(config):
    config.data.source = "emoji/food:train"
    config.data.text_store = "demo/text"
    config.data.text_encoder = "demo/encoder"
    config.data.image_size, config.data.low_res_size, config.data.crop_size = 256, 64, 64
    config.data.batch_size = 16
    config.data.max_tokens = 24
    config.model.update(
        channels=16, channel_mults=(1, 2, 4), num_blocks=(1, 1, 2), attention=("none", "none", "cross"), num_heads=2,
        dtype="float32",
    )  # fmt: skip
    config.optimizer.update(learning_rate=2e-3, warmup_steps=50, b2=0.99)
    config.diffusion.max_aug_level = 0.3
    config.ema_decay = 0.99
    config.train.update(num_steps=1_200, log_every=50, checkpoint_every=300, sample_every=600, keep_checkpoints=2)
    config.sampling.update(sampler="ddim", num_steps=4, threshold="static")


def _paper(config):
    _demo(config)
    recipes.paper(config, schedule="linear")
    config.model.low_res_residual = False


def _modern(config):
    _demo(config)
    recipes.modern(config, guidance_weight=1.5)
    config.model.low_res_residual = False


def _full(config):
    config.data.source = "emoji/1024:train"
    config.data.text_store = "runs/emoji/text1024"
    config.data.text_encoder = "runs/emoji/encoder"
    config.data.image_size, config.data.low_res_size, config.data.crop_size = 1024, 256, 256
    config.data.batch_size = 64
    config.data.max_tokens = 32
    config.model.update(
        channels=64, channel_mults=(1, 2, 4, 8), num_blocks=(2, 2, 4, 4), attention=("none", "none", "none", "cross")
    )
    config.optimizer.update(learning_rate=3e-4, warmup_steps=1_000, b2=0.99)
    config.ema_decay = 0.999
    config.train.update(num_steps=40_000, checkpoint_every=2_000, sample_every=5_000)
    config.sampling.update(num_steps=16, threshold="static")


def get_config(arg="demo"):
    config = base_config()
    config.prompts = DEMO_PROMPTS
    config.model.update(name="efficient_unet", low_res_residual=True, skip_per_block=False)
    config.diffusion.update(prediction="x", weighting="plain")
    choose_variant(arg, {"demo": _demo, "paper": _paper, "modern": _modern, "full": _full})(config)
    return config
