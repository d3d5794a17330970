"""Base stage on the emoji data set.

    :demo  16 px, 135 food names in two styles, 2 CPU cores
           python -m imagen_jax.train --config=configs/emoji_base.py:demo --workdir=demo/base
    :paper, :modern
           the demo's network, data and length with those recipes (configs/recipes.py); benchmarks/recipes.py compares
           them. In 2,200 steps of 32 images eps learns no captions: it gives little weight to the noisiest examples,
           the ones that only a caption can tell. v has learnt them all after 2,500 steps of a run of 5,000.
    :full  64 px, all of it, one accelerator
           python -m imagen_jax.train --config=configs/emoji_base.py:full --workdir=runs/emoji/base

README, "Runs", has what they cost and what they reach, and the two commands that prepare the text.
"""

from configs import recipes
from imagen_jax.config import base_config, choose_variant

DEMO_PROMPTS = (
    "red apple, twemoji style",
    "hamburger, openmoji style",
    "pizza, twemoji style",
    "watermelon, twemoji style",
    "avocado, openmoji style",
    "doughnut, twemoji style",
    "carrot, openmoji style",
    "lollipop, twemoji style",
)


def _demo(config):
    config.data.source = "emoji/food:train"
    config.data.text_store = "demo/text"
    config.data.text_encoder = "demo/encoder"
    config.data.image_size = 16
    config.data.batch_size = 32
    config.data.max_tokens = 24
    config.model.update(
        channels=32, channel_mults=(1, 2, 4), num_blocks=1, attention_levels=(False, True, True), head_channels=32,
        dtype="float32",
    )  # fmt: skip
    # Plain squared error of x: after 500 steps it gets 80% of the names right, v 29%, and its background is whiter.
    config.diffusion.update(prediction="x", weighting="plain")
    config.optimizer.update(name="adam", learning_rate=2e-3, warmup_steps=50, b2=0.99)
    config.ema_decay = 0.99
    config.train.update(num_steps=2_200, log_every=50, checkpoint_every=550, sample_every=550, keep_checkpoints=2)
    config.sampling.update(sampler="ddim", num_steps=16, threshold="static")


def _paper(config):
    _demo(config)
    recipes.paper(config, optimizer="adafactor")
    config.optimizer.learning_rate = 2e-2  # relative to a parameter's size: Adafactor's way
    config.sampling.guidance_weight = 1.0  # the paper's 1.35 is for COCO


def _modern(config):
    _demo(config)
    recipes.modern(config, guidance_weight=2.0)


def _full(config):
    config.data.source = "emoji:train"
    config.data.text_store = "runs/emoji/text"
    config.data.text_encoder = "runs/emoji/encoder"
    config.data.batch_size = 256
    config.diffusion.update(prediction="v", weighting="plain")
    config.data.max_tokens = 32
    config.model.update(channels=128, channel_mults=(1, 2, 3, 4), num_blocks=2)
    config.optimizer.update(name="adam", learning_rate=3e-4, warmup_steps=1_000, b2=0.99)
    config.ema_decay = 0.999
    config.train.update(num_steps=60_000, checkpoint_every=2_000, sample_every=2_000)
    config.sampling.update(num_steps=64, threshold="static")


def get_config(arg="demo"):
    config = base_config()
    # Thresholding is static: where a percentile of the guided x_hat is above 1, the dynamic one divides by it, and the
    # white background turns grey.
    config.prompts = DEMO_PROMPTS
    config.model.name = "unet"
    choose_variant(arg, {"demo": _demo, "paper": _paper, "modern": _modern, "full": _full})(config)
    return config
