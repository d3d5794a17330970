"""Makes a small UNTRAINED text encoder, for demos and tests.

python -m imagen_jax.untrained_encoder --data=SPEC --out=DIR

Its vocabulary is trained on the data set's captions; its weights are random, and it has read nothing else. It tells
captions apart, which is enough for a demo without a download; it does not know that a cat is an animal.
"""

from absl import flags

from imagen_jax import cli
from imagen_jax.data.sources import open_source
from imagen_jax.text.encoder import load_encoder
from imagen_jax.text.untrained import write_untrained_encoder

_DATA = flags.DEFINE_string("data", None, "Data set, for example emoji:train or folder/PATH.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "datasets", "Where prepared data sets are kept.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the random weights.")
_VOCAB_SIZE = flags.DEFINE_integer("vocab_size", 1024, "At most this many pieces.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("width", 64, "Of the embeddings.", lower_bound=1)
_NUM_LAYERS = flags.DEFINE_integer("num_layers", 2, "Blocks of the encoder.", lower_bound=1)
_NUM_HEADS = flags.DEFINE_integer("num_heads", 4, "Attention heads; they divide the width.", lower_bound=1)


def main() -> None:
    """Writes the folder and prints what it is."""
    source = open_source(_DATA.value, data_dir=_DATA_DIR.value)
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
    print(f"{_OUT.value}: {encoder.name}; random weights, vocabulary from the captions of {source.spec}")


if __name__ == "__main__":
    cli.run(main)
