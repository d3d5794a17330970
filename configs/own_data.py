"""A cascade of two stages on your own captioned pictures: docs/own_data.md has the whole way.

python -m imagen_jax.train --config=configs/own_data.py:VARIANT --config.data.source=FOLDER --workdir=DIR

    :laptop_base, :laptop_sr
           16 px and 16 -> 64 px, 2 CPU cores: 18 and 5 minutes on a busy machine. 60 drawings of shapes are then drawn
           with the right shape and colours, nearly all as copies
    :gpu_base, :gpu_sr
           64 px and 64 -> 256 px, one GPU: 113M and 74M parameters with texts of width 768. Not run yet; at a third of
           an A100's peak the operations would take 5 hours and 1 hour
    :pod_base, :pod_sr
           64 px and 64 -> 256 px, a pod: the paper's networks (Imagen, appendix F) with half of their channels, 679M
           and 148M parameters with texts of width 4096. Not run yet; at 40% of the peak of 32 TPU v4 the operations
           would take 30 hours and 4 hours. imagen_jax.plan says beforehand what fits

The recipe of :gpu and :pod is configs/recipes.py's modern one. It stands here again so that a copy of this file is
enough for a config of your own, in any folder.
"""

from imagen_jax.config import base_config, choose_variant


def _modern(config, *, guidance_weight):
    config.diffusion.update(prediction="v", weighting="min_snr", schedule="shifted_cosine", stratified_times=True)
    config.optimizer.update(name="adamw", weight_decay=0.01)
    config.sampling.update(
        sampler="dpmpp_2m",
        num_steps=16,
        spacing="uniform_logsnr",
        guidance_weight=guidance_weight,
        guidance_interval=(0.25, 0.75),
        threshold="dynamic",
    )


def _laptop(config):
    # As the emoji demo: predicting x with plain squared error learns most in few steps, on few channels.
    config.diffusion.update(prediction="x", weighting="plain")
    config.optimizer.update(learning_rate=2e-3, warmup_steps=50, b2=0.99)
    config.ema_decay = 0.99
    config.model.dtype = "float32"  # a CPU is slower in bfloat16
    config.train.update(log_every=50, checkpoint_every=500, sample_every=500, keep_checkpoints=2)


def _laptop_base(config):
    _laptop(config)
    config.data.batch_size = 32
    config.model.update(channels=32, channel_mults=(1, 2, 4), num_blocks=1, attention_levels=(False, True, True))
    config.model.head_channels = 32
    config.train.num_steps = 2_000
    config.sampling.update(sampler="ddim", num_steps=16, threshold="static")


def _laptop_sr(config):
    _laptop(config)
    config.data.batch_size = 16
    config.model.update(channels=16, channel_mults=(1, 2, 4), num_blocks=(1, 2, 2), num_heads=2)
    config.model.update(attention=("none", "none", "joint"), low_res_residual=True)
    config.diffusion.max_aug_level = 0.3
    config.train.num_steps = 1_500
    config.sampling.update(num_steps=8, threshold="static")


def _gpu(config):
    config.optimizer.update(learning_rate=3e-4, warmup_steps=1_000, b2=0.99)
    config.ema_decay = 0.999
    config.train.update(checkpoint_every=2_000, sample_every=2_000)


def _gpu_base(config):
    _modern(config, guidance_weight=2.0)
    _gpu(config)
    config.data.batch_size = 128
    config.model.update(channels=128, channel_mults=(1, 2, 3, 4), num_blocks=2)
    config.model.update(attention_levels=(False, True, True, True), head_channels=64)
    config.train.num_steps = 60_000


def _gpu_sr(config):
    _modern(config, guidance_weight=1.5)
    _gpu(config)
    config.data.batch_size = 32
    config.model.update(channels=64, channel_mults=(1, 2, 4, 8), num_blocks=(2, 2, 4, 4))
    config.model.update(attention=("none", "none", "none", "joint"), num_heads=8)
    config.train.num_steps = 40_000


def _pod_base(config):
    _modern(config, guidance_weight=2.0)
    config.data.batch_size = 1_024
    config.model.update(channels=256, channel_mults=(1, 2, 3, 4), num_blocks=3)
    config.model.update(attention_levels=(False, True, True, True), head_channels=64)
    config.train.num_steps = 300_000


def _pod_sr(config):
    _modern(config, guidance_weight=2.0)
    config.data.batch_size = 512
    config.model.update(channels=64, channel_mults=(1, 2, 4, 8), num_blocks=(2, 4, 8, 8), remat=True)
    config.model.update(attention=("none", "none", "none", "joint"), num_heads=8, skip_per_block=True)
    config.train.num_steps = 200_000


# Name -> (pixels of a side, of the stage before, the rest).
_VARIANTS = {
    "laptop_base": (16, 0, _laptop_base),
    "laptop_sr": (64, 16, _laptop_sr),
    "gpu_base": (64, 0, _gpu_base),
    "gpu_sr": (256, 64, _gpu_sr),
    "pod_base": (64, 0, _pod_base),
    "pod_sr": (256, 64, _pod_sr),
}


def get_config(arg="laptop_base"):
    config = base_config()
    image_size, low_res_size, set_rest = choose_variant(arg, _VARIANTS)
    # Where `precompute_text --out=own/text` writes. data.source is yours to give.
    config.data.update(text_store="own/text", text_encoder="own/text_encoder")
    config.data.update(image_size=image_size, low_res_size=low_res_size)
    config.model.name = "efficient_unet" if low_res_size else "unet"
    set_rest(config)
    return config
