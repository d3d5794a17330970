"""The smallest real cascade: 8 -> 16 -> 32 px on the hearts of the emoji data set; variants base, sr1, sr2.

Compiling is most of what the tests that use it take: few arrays, and everywhere the same batch sizes and steps.
"""

from imagen_jax.config import base_config, choose_variant

SIZES = {"base": (8, 0, 0), "sr1": (16, 8, 0), "sr2": (32, 16, 16)}
PROMPTS = ("red heart, openmoji style", "blue heart, twemoji style")


def get_config(arg="base"):
    config = base_config()
    image_size, low_res_size, crop_size = choose_variant(arg, SIZES)
    config.prompts = PROMPTS
    config.data.update(
        source="emoji/32/hearts:train", image_size=image_size, low_res_size=low_res_size, crop_size=crop_size,
        batch_size=8, max_tokens=8,
    )  # fmt: skip
    if arg == "base":
        config.model.update(name="unet", channel_mults=(1, 2), num_blocks=1, attention_levels=(False, True))
    else:
        config.model.update(
            name="efficient_unet", channel_mults=(1,), num_blocks=(1,), attention=("cross",), num_heads=2
        )
    config.model.update(channels=8, dtype="float32")
    config.diffusion.update(prediction="v", weighting="v")
    config.optimizer.update(learning_rate=1e-3, warmup_steps=2, decay_steps=60)
    config.ema_decay = 0.9
    config.train.update(num_steps=8, log_every=2, checkpoint_every=3, sample_every=8, keep_checkpoints=2)
    config.sampling.update(num_steps=3, guidance_weight=2.0, threshold="static")
    return config
