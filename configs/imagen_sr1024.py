"""The paper's 256 -> 1024 px stage (Imagen, appendix F.3): an Efficient U-Net, 0.47B parameters with T5-XXL's width.

python -m imagen_jax.train --config=configs/imagen_sr1024.py[:paper|:modern] --workdir=DIR \
    --config.data.source=... --config.data.text_store=...

Trained on random crops of 256 px, sampled on whole images: it has no self-attention. The paper: 128 TPU v4 chips, batch
2048, 2.5M steps. These are the configurations, not results of ours.
"""

from configs import recipes
from imagen_jax.config import base_config, choose_variant


def _paper(config):
    recipes.paper(config, schedule="linear")
    config.optimizer.decay_steps = 0  # F.3 names a warm-up and no decay
    config.sampling.guidance_weight = 8.0  # of the paper's COCO FID


def _modern(config):
    recipes.modern(config, guidance_weight=2.0)


def get_config(arg="paper"):
    config = base_config()
    config.prompts = ()  # a grid needs whole parameters on every chip, which training with fsdp does not
    config.data.image_size, config.data.low_res_size, config.data.crop_size = 1024, 256, 256
    config.model.update(
        name="efficient_unet",
        channels=128,
        channel_mults=(1, 2, 4, 8),
        num_blocks=(2, 4, 8, 8),
        attention=("none", "none", "none", "cross"),
        num_heads=8,
        skip_per_block=False,
        remat=True,
    )
    choose_variant(arg, {"paper": _paper, "modern": _modern})(config)
    return config
