"""Makes a small UNTRAINED text encoder, for demos and tests.

python -m imagen_jax.untrained_encoder --data=SPEC --out=DIR

Its vocabulary is trained on the data set's captions; its weights are random, and it has read nothing else. It tells
captions apart, which is enough for a demo without a download; it does not know that a cat is an animal.
"""

from absl import flags

from imagen_jax import cli, shared_flags
from imagen_jax.data.sources import open_source
from imagen_jax.terminal import say
from imagen_jax.text.encoder import load_encoder
from imagen_jax.text.untrained import write_untrained_encoder

_DATA = flags.DEFINE_string("data", None, "Data set, for example emoji:train or folder/PATH.", required=True)
_OUT = shared_flags.define_path("out", None, "The encoder is written to this folder.", required=True)
_DATA_DIR = shared_flags.define_path("data_dir", "datasets", "Prepared data sets are kept in this folder.")
_SEED = flags.DEFINE_integer(
    "seed", 0, "The random weights are drawn from this seed.", lower_bound=0, upper_bound=2**32 - 1
)
_VOCAB_SIZE = flags.DEFINE_integer(
    "vocab_size", 1024, "The vocabulary has at most this many pieces.", lower_bound=1, upper_bound=2**17
)
_WIDTH = flags.DEFINE_integer("width", 64, "The embeddings have this width.", lower_bound=1, upper_bound=2**14)
_NUM_LAYERS = flags.DEFINE_integer("num_layers", 2, "The encoder has this many blocks.", lower_bound=1, upper_bound=128)
_NUM_HEADS = flags.DEFINE_integer(
    "num_heads",
    4,
    "The encoder has this many attention heads, which divide the width.",
    lower_bound=1,
    upper_bound=2**14,
)


def main() -> None:
    """Writes the folder and prints what it is."""
    source = open_source(_DATA.value, data_dir=str(_DATA_DIR.value))
    write_untrained_encoder(
        source.captions(),
        _OUT.value,
        seed=_SEED.value,
        vocab_size=_VOCAB_SIZE.value,
        d_model=_WIDTH.value,
        d_ff=2 * _WIDTH.value,
        num_layers=_NUM_LAYERS.value,
        num_heads=_NUM_HEADS.value,
    )
    encoder = load_encoder(_OUT.value)
    say(f"{_OUT.value}: {encoder.name}; random weights, vocabulary from the captions of {source.spec}")


if __name__ == "__main__":
    cli.run(main)
