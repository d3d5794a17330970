"""Base stage on the emoji data set.

    :demo  16 px, 131 food names in two styles, 2 CPU cores
           python -m imagen_jax.train --config=configs/emoji_base.py:demo --workdir=demo/base
    :full  64 px, all of it, one accelerator
           python -m imagen_jax.train --config=configs/emoji_base.py:full --workdir=runs/emoji/base

README, "Runs", has what they cost and what they reach, and the two commands that prepare the text.
"""

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
    config.data.max_tokens = 16
    config.model.update(
        channels=32, channel_mults=(1, 2, 4), num_blocks=1, attention_levels=(False, True, True), head_channels=32,
        dtype="float32",
    )  # fmt: skip
    config.optimizer.update(name="adam", learning_rate=2e-3, warmup_steps=50, decay_steps=1_400, b2=0.99)
    config.ema_decay = 0.99
    config.train.update(num_steps=1_400, log_every=50, checkpoint_every=350, sample_every=350, keep_checkpoints=2)
    config.sampling.update(num_steps=32, guidance_weight=2.0)


def _full(config):
    config.data.source = "emoji:train"
    config.data.text_store = "runs/emoji/text"
    config.data.text_encoder = "runs/emoji/encoder"
    config.data.batch_size = 256
    config.data.max_tokens = 32
    config.model.update(channels=128, channel_mults=(1, 2, 3, 4), num_blocks=2)
    config.optimizer.update(name="adam", learning_rate=3e-4, warmup_steps=1_000, decay_steps=60_000, b2=0.99)
    config.ema_decay = 0.999
    config.train.update(num_steps=60_000, checkpoint_every=2_000, sample_every=2_000)
    config.sampling.update(num_steps=64, guidance_weight=2.0)


def get_config(arg="demo"):
    config = base_config()
    config.prompts = DEMO_PROMPTS
    config.model.name = "unet"
    config.diffusion.update(prediction="v", weighting="v")
    choose_variant(arg, {"demo": _demo, "full": _full})(config)
    return config
