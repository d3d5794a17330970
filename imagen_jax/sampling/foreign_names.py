"""Other projects' names of what `Cascade.sample` and the command lines of `sample` and `evaluate` take."""

from collections.abc import Iterable, Mapping

from imagen_jax.registry import did_you_mean

# Their name -> ours; "" where there is no such thing here, and REASONS then says what there is instead.
FOREIGN_NAMES: Mapping[str, str] = {
    # diffusers
    "guidance_scale": "guidance",
    "num_inference_steps": "steps",
    "timesteps": "times",
    "sigmas": "times",
    "scheduler": "sampler",
    "prompt": "prompts",
    "negative_prompt": "negative_prompts",
    "prompt_embeds": "prompts",
    "negative_prompt_embeds": "negative_prompts",
    "generator": "seed",
    "noise_level": "aug_level",
    "dynamic_thresholding_ratio": "threshold_percentile",
    "sample_max_value": "threshold_cap",
    "thresholding": "threshold",
    "clip_sample": "threshold",
    "use_karras_sigmas": "spacing",
    "timestep_spacing": "spacing",
    "num_images_per_prompt": "",
    "num_images": "",
    "height": "",
    "width": "",
    "image_size": "stop_at",
    "latents": "",
    "output_type": "",
    "return_dict": "",
    "callback": "",
    "callback_on_step_end": "",
    "device": "devices",
    # imagen-pytorch, DeepFloyd IF, k-diffusion, stable-diffusion
    "texts": "prompts",
    "text_embeds": "prompts",
    "cond_scale": "guidance",
    "cfg": "guidance",
    "cfg_scale": "guidance",
    "scale": "guidance",
    "guidance_weights": "guidance",
    "w": "guidance",
    "lowres_sample_noise_level": "aug_level",
    "stop_at_unet_number": "stop_at",
    "start_image_or_video": "",
    "start_at_unet_number": "",
    "dynamic_threshold": "threshold",
    "dynamic_thresholding": "threshold",
    "dynamic_thresholding_p": "threshold_percentile",
    "dynamic_thresholding_c": "threshold_cap",
    "smart_timesteps": "spacing",
    "sample_timestep_respacing": "spacing",
    "sampler_name": "sampler",
    "ddim_steps": "steps",
    "ddim_eta": "eta",
    "sample_steps": "steps",
    "num_sample_steps": "steps",
    "sampling_steps": "steps",
    "random_seed": "seed",
    "manual_seed": "seed",
    "n_samples": "",
    "num_samples": "",
    "batch": "batch_size",
    "bs": "batch_size",
}

_ONE_A_PROMPT = "one image is drawn for each prompt: give a prompt as often as you want images of it"
_FIXED_SIZE = "a stage's size is that of its training: stop_at says after which stage to stop"
_FROM_NOISE = "sampling begins with noise, which seed decides"
_ARRAYS = "the result is uint8 arrays by image size"
REASONS: Mapping[str, str] = {
    **dict.fromkeys(("num_images_per_prompt", "num_images", "n_samples", "num_samples"), _ONE_A_PROMPT),
    **dict.fromkeys(("height", "width"), _FIXED_SIZE),
    **dict.fromkeys(("latents", "start_image_or_video", "start_at_unet_number"), _FROM_NOISE),
    **dict.fromkeys(("output_type", "return_dict"), _ARRAYS),
    **dict.fromkeys(("callback", "callback_on_step_end"), "log_stages=True says what is being drawn"),
}


def describe_unknown(name: str, ours: Iterable[str]) -> str:
    """Returns a sentence for a name that is none of `ours`: what it is called here, or the closest name; or "".

    Args:
      name: as it was given.
      ours: all names that there are.
    """
    if name in REASONS:
        return f" Here {REASONS[name]}."
    if known := FOREIGN_NAMES.get(name):
        return f' Did you mean "{known}"?'
    return did_you_mean(name, ours)
