"""Large pictures are opened within bounded memory."""

import subprocess
import sys

import pytest
from PIL import Image

OPEN = {
    "data set": "from imagen_jax.data.sources.folder import open_folder; open_folder('folder/' + root, root + '/data')",
    "images": "from pathlib import Path; from imagen_jax.evaluation.image_folder import ImageFolder; "
    "ImageFolder(Path(root))",
}


@pytest.mark.parametrize("kind", OPEN)
def test_four_pictures_of_fifty_megapixels_with_alpha_are_opened_under_a_gigabyte(kind, tmp_path):
    Image.new("RGBA", (7000, 7000), (10, 50, 90, 120)).save(tmp_path / "0.png", compress_level=1)
    for i in range(1, 4):
        (tmp_path / f"{i}.png").hardlink_to(tmp_path / "0.png")
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text("grey")
    # A process of its own, and the most memory that it had: getrusage would count what this one had when it was forked.
    code = f"import sys; root = sys.argv[1]; {OPEN[kind]}; "
    code += "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(output.split()[-1]) < 1_000_000  # KiB
