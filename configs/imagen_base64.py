"""The paper's base stage (Imagen, appendix F.1): 64 px, 2.4B parameters with T5-XXL's text width.

python -m imagen_jax.train --config=configs/imagen_base64.py[:paper|:modern] --workdir=DIR \
    --config.data.source=... --config.data.text_store=...

The paper: 256 TPU v4 chips, batch 2048, 2.5M steps; COCO zero-shot FID-30K 7.27 with both super-resolution
stages. These are the configurations, not results of ours.
"""

from configs import recipes
from imagen_jax.config import base_config, choose_variant


def _paper(config):
    recipes.paper(config, optimizer="adafactor")
    config.sampling.guidance_weight = 1.35  # of the paper's COCO FID


def _modern(config):
    recipes.modern(config, guidance_weight=2.0)


def get_config(arg="paper"):
    config = base_config()
    config.prompts = ()  # a grid needs whole parameters on every chip, which training with fsdp does not
    config.model.update(
        name="unet",
        channels=512,
        channel_mults=(1, 2, 3, 4),
        num_blocks=3,
        attention_levels=(False, True, True, True),  # at 32, 16 and 8 px
        head_channels=64,
        remat=False,  # 8 images a chip fit a TPU v4 without; recomputing takes 0.045 s more, at peak (docs/plans.md)
    )
    choose_variant(arg, {"paper": _paper, "modern": _modern})(config)
    return config
