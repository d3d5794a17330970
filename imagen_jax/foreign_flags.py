"""Flags as users of other programs know them, and what they are called here."""

from collections.abc import Collection, Mapping

# The first of the names here that a main has is the one to suggest; "config.*" are fields of its config.
_NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("guidance_scale", "cfg_scale", "cfg", "scale", "guidance_weight", "cond_scale"), ("guidance",)),
    **dict.fromkeys(
        ("num_inference_steps", "inference_steps", "sampling_steps", "sample_steps", "ddim_steps"),
        ("steps", "config.sampling.num_steps"),
    ),
    **dict.fromkeys(
        ("num_steps", "max_steps", "train_steps", "max_train_steps", "iterations", "iters"),
        ("config.train.num_steps", "steps"),
    ),
    **dict.fromkeys(("scheduler", "solver", "method"), ("sampler", "config.sampling.sampler")),
    **dict.fromkeys(("sigmas", "timesteps"), ("times",)),
    "guidance_scale_range": ("guidance_interval",),
    "rescale": ("guidance_rescale",),
    "ddim_eta": ("eta",),
    **dict.fromkeys(("n_samples", "num_images", "n_images", "samples", "count"), ("num_samples",)),
    **dict.fromkeys(
        ("batch", "bs", "train_batch_size", "eval_batch_size", "per_device_batch_size", "batchsize"),
        ("batch_size", "config.data.batch_size"),
    ),
    **dict.fromkeys(("lr", "learning_rate"), ("config.optimizer.learning_rate",)),
    **dict.fromkeys(("epochs", "num_epochs", "num_train_epochs"), ("config.train.num_epochs",)),
    **dict.fromkeys(("grad_accum", "gradient_accumulation_steps"), ("config.train.accumulate_steps",)),
    **dict.fromkeys(("ema", "ema_rate"), ("config.ema_decay",)),
    **dict.fromkeys(("resolution", "image_size", "size"), ("config.data.image_size", "stop_at")),
    **dict.fromkeys(("save_every", "checkpointing_steps", "save_interval"), ("config.train.checkpoint_every",)),
    **dict.fromkeys(("output", "output_dir", "outdir", "output_path", "o", "save_dir", "dest"), ("out", "workdir")),
    **dict.fromkeys(("logdir", "log_dir", "run_dir", "exp_dir", "resume", "resume_from_checkpoint"), ("workdir",)),
    **dict.fromkeys(
        ("model", "checkpoint", "ckpt", "model_path", "pretrained", "pretrained_model_name_or_path", "weights"),
        ("cascade", "workdirs", "encoder"),
    ),
    **dict.fromkeys(("dataset", "data_path", "train_data_dir", "data_root"), ("data", "config.data.source")),
    **dict.fromkeys(("prompts", "text", "caption"), ("prompt", "prompts_file")),
    **dict.fromkeys(("prompt_file", "from_file", "prompts_path"), ("prompts_file",)),
    **dict.fromkeys(("neg_prompt", "negative", "negative_prompts"), ("negative_prompt",)),
    **dict.fromkeys(("device", "gpu", "gpus", "num_gpus", "num_devices"), ("devices",)),
    **dict.fromkeys(("text_encoder", "t5"), ("encoder", "config.data.text_encoder")),
    **dict.fromkeys(("fid_stats", "stats", "ref", "real"), ("reference",)),
    **dict.fromkeys(("cfg_file", "conf"), ("config",)),
    **dict.fromkeys(("tpu", "tpu_type", "accelerator_type"), ("accelerator",)),
    "random_seed": ("seed",),
}
# Where no flag here does it.
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        ("height", "width", "h", "w", "resolution", "image_size", "size"),
        "A cascade's images have the sizes that it was trained for.",
    ),
    **dict.fromkeys(
        ("num_images", "n_samples", "num_images_per_prompt", "n_images", "n_iter"),
        "Each --prompt makes one image; repeat it for more.",
    ),
    **dict.fromkeys(
        ("device", "gpu", "gpus", "num_gpus"),
        "jax takes all devices that it finds; JAX_PLATFORMS=cpu in the environment is for the CPU.",
    ),
    **dict.fromkeys(
        ("fp16", "half", "bf16", "precision", "mixed_precision"), "The type of the computation is config.model.dtype."
    ),
    **dict.fromkeys(
        ("resume", "resume_from_checkpoint"), "The same command with the same --workdir goes on where it stopped."
    ),
}
_MAINS_WITH_PROMPTS = "prompt"


def translate(name: str, known: Collection[str]) -> str:
    """Returns advice for a flag that the main doesn't have, a sentence and a space, or "".

    Args:
      name: of the flag, without dashes.
      known: the names of the flags that the main has.
    """
    plain = name.replace("-", "_").lower()
    if plain != name and plain in known:
        return f'Did you mean "--{plain}"? '
    for here in _NAMES.get(plain, ()):
        if here in known or (here.startswith("config.") and "config" in known):
            return f"Here it is called --{here}. "
    advice = _ADVICE.get(plain, "")
    if advice and plain in ("num_images", "n_samples", "n_images") and _MAINS_WITH_PROMPTS not in known:
        return ""
    return f"{advice} " if advice else ""
