"""Two ways to train and sample the same networks, for configs/ to start from: the paper's, and a modern one.

What a recipe sets is what a change of recipe changes; data, network, length and learning rates belong to a run. The
comparison of the two is benchmarks/recipes.py.
"""


def paper(config, *, optimizer="adam", schedule="cosine"):
    """The paper's (Imagen, section 2 and appendix F): eps, plain squared error, ancestral sampling in 256 steps.

    The base has Adafactor and SR1024 the linear schedule.
    """
    config.diffusion.update(
        prediction="eps", weighting="plain", schedule=schedule, stratified_times=False, max_aug_level=1.0
    )
    config.optimizer.name = optimizer
    config.sampling.update(sampler="ddpm", num_steps=256, spacing="uniform", gamma=0.3, threshold="dynamic")


def modern(config, *, guidance_weight):
    """What was published since, in 16 steps of DPM-Solver++ (Lu et al. 2022) in place of 256.

    Prediction of v (Salimans & Ho 2022), min-SNR weights (Hang et al. 2023), the cosine schedule shifted with the size
    (Hoogeboom et al. 2023), stratified times (Kingma et al. 2021), AdamW, and guidance at times from 0.25 to 0.75 only
    (Kynkaanniemi et al. 2024), which 3 of the 16 levels are.
    """
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
