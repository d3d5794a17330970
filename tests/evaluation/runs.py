"""Runs to show and compare, with prompts that break a page which doesn't escape them."""

import numpy as np

from imagen_jax.evaluation.pages.run_folder import Run, image_path, write_run
from imagen_jax.evaluation.prompts.prompt_lists import PromptList
from imagen_jax.sampling.images import save_png

NASTY = (
    "a <b>red</b> car & a \"dog's\" 'bone'",
    "</script><script>document.title = 'broken'</script><!--",
    '"><img src=x onerror="document.title = \'broken\'">',
    "{{title}} \\u003c \\ ${1} \N{SNOWMAN}",
    "two\nlines",
    "  &lt; is not <  ",
)
CATEGORIES = ("Colors", "Text <&>", "Text <&>", "Colors", "Counting", "Counting")


def prompt_list(prompts=NASTY, categories=CATEGORIES):
    return PromptList("drawbench", prompts, categories, tuple(str(n) for n in range(1, len(prompts) + 1)))


def write_images(folder, title="a run", *, prompts=None, per_prompt=2, seed=0):
    """A finished run whose images all differ."""
    prompts = prompts or prompt_list()
    rng = np.random.default_rng(seed)
    for index in range(len(prompts) * per_prompt):
        save_png(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8), image_path(folder, size=8, index=index))
    run = Run(title, prompts, per_prompt, 8, {"guidance": [1.35, 8.0]})
    write_run(folder, run)
    return run
