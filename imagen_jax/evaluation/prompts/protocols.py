"""What the paper measures, and on what. Numbers are of Imagen, arXiv 2205.11487, unless noted."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from imagen_jax.errors import InputError
from imagen_jax.evaluation.prompts.coco import read_coco
from imagen_jax.evaluation.prompts.prompt_lists import PromptList, read_drawbench, read_parti

# Of the ablations' curves of FID against CLIP score.
BASE_WEIGHTS = (1.0, 1.25, 1.5, 1.75, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
SR_WEIGHTS = (1.0, 3.0, 5.0, 7.0, 8.0, 10.0, 12.0, 15.0, 18.0)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What to sample for one kind of result.

    Attributes:
      name: its key in PROTOCOLS.
      num_prompts: to draw; None: all that the file has.
      samples_per_prompt: the number of samples is this times that of prompts.
      guidance: the points of a sweep, each the weights of the first stages; empty: the cascade's own.
      read_table: reads the file of prompts; None: they are drawn from COCO's captions.
    """

    name: str
    num_prompts: int | None
    samples_per_prompt: int
    guidance: tuple[tuple[float, ...], ...] = ()
    read_table: Callable[[Path], PromptList] | None = None

    def read_prompts(
        self,
        *,
        prompts_file: Path | None = None,
        coco_annotations: Path | None = None,
        reading: str = "captions",
        seed: int = 0,
    ) -> PromptList:
        """The prompts, from the one of the two files that this protocol needs.

        Args:
          reading, seed: of `read_coco`; a table is read whole.

        Raises:
          InputError: that file isn't given, or the other one is, or it can't be used.
        """
        given = {"prompts_file": prompts_file, "coco_annotations": coco_annotations}
        wanted = "prompts_file" if self.read_table else "coco_annotations"
        path = given.pop(wanted)
        if path is None or any(given.values()):
            raise InputError(
                f"--protocol={self.name} takes its prompts from --{wanted}=FILE, and no --{next(iter(given))}"
            )
        if self.read_table:
            return self.read_table(path)
        assert self.num_prompts is not None
        return read_coco(path, reading=reading, count=self.num_prompts, seed=seed)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # FID-30K at 256 px, with these weights of the base and of 64 -> 256: 7.27.
        Protocol("coco30k", num_prompts=30_000, samples_per_prompt=1, guidance=((1.35, 8.0),)),
        # FID-10K and CLIP score over guidance weights, of one stage at a time; the other's are those of FID-30K.
        Protocol(
            "coco10k",
            num_prompts=10_000,
            samples_per_prompt=1,
            guidance=(*((weight, 8.0) for weight in BASE_WEIGHTS), *((1.35, weight) for weight in SR_WEIGHTS)),
        ),
        # What raters are shown, for each of two models: see comparison.py.
        Protocol("drawbench", num_prompts=None, samples_per_prompt=8, read_table=read_drawbench),
        # As many by our choice, so that the same pages show them; the prompts are of Parti, arXiv 2206.10789.
        Protocol("parti", num_prompts=None, samples_per_prompt=8, read_table=read_parti),
    )
}
