"""Host memory and time that a published text encoder's weights take to load, as shares of the file.

python -m benchmarks.encoder_loading [--layers=17]

Writes an encoder of random weights with t5-v1_1-large's widths (1 GB with 17 of its 24 blocks) into a temporary folder,
and loads it in processes of their own, onto the CPU: what it counts is the parameters and all that was needed besides.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import flags
from safetensors.numpy import save_file

from imagen_jax import cli
from imagen_jax.text.t5_config import make_encoder
from imagen_jax.text.t5_weights import parameter_shapes, transformers_name
from imagen_jax.text.tokenizer import train_vocabulary

_LAYERS = flags.DEFINE_integer("layers", 17, "Blocks of the encoder.", lower_bound=1)

_SIZES = {"vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_heads": 16}
_LOAD = """
import sys, time
import jax

def memory(what):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))

from imagen_jax.text.encoder import load_encoder, identify_encoder
import sentencepiece
jax.block_until_ready(jax.jit(lambda x: x + 1)(jax.numpy.zeros(8)))
before, start = memory("VmRSS"), time.perf_counter()
if sys.argv[2] == "hash":
    identify_encoder(sys.argv[1])
else:
    encoder = load_encoder(sys.argv[1], dtype=sys.argv[2])
print(memory("VmHWM") - before, time.perf_counter() - start)
"""


def main() -> None:
    """Writes, loads and prints a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("| file | loaded as | peak / file | seconds |\n|---|---|---|---|")
        for saved, kind in (("float32", np.float32), ("bfloat16", ml_dtypes.bfloat16)):
            _write(folder, kind)
            size = (folder / "model.safetensors").stat().st_size
            for loaded in ("float32", "bfloat16", "hash"):
                command = [sys.executable, "-c", _LOAD, name, loaded]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                peak, seconds = map(float, done.stdout.split())
                print(f"| {size / 1e9:.2f} GB {saved} | {loaded} | {peak / size:.2f} | {seconds:.1f} |")


def _write(folder: Path, kind: type) -> None:
    config = {"model_type": "t5", "feed_forward_proj": "gated-gelu", "num_layers": _LAYERS.value, **_SIZES}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "spiece.model").write_bytes(train_vocabulary(["red apple, green pear"], vocab_size=100))
    rng = np.random.default_rng(0)
    tensors = {}
    for path, shape in parameter_shapes(make_encoder(config, folder, np.float32)).items():
        sizes = shape.shape[::-1] if path[-1] == "kernel" else shape.shape
        tensors[transformers_name(path)] = rng.standard_normal(sizes, np.float32).astype(kind)
    save_file(tensors, folder / "model.safetensors")


if __name__ == "__main__":
    cli.run(main)
