"""Against torch's T5EncoderModel, with random weights of its own making. Needs the extra `parity`."""

from typing import Any

import jax
import numpy as np
import pytest

from imagen_jax.text.t5 import T5Encoder, relative_position_bucket

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

SIZES: dict[str, Any] = {"vocab_size": 60, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 3, "num_heads": 4}


def to_params(state, num_layers):
    """Our parameter tree from a transformers state dict of NumPy arrays."""

    def kernel(name):
        return {"kernel": state[f"{name}.weight"].T}

    def scale(name):
        return {"scale": state[f"{name}.weight"]}

    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    params = {
        "shared": {"embedding": state["shared.weight"]},
        "relative_attention_bias": {"embedding": state[bias]},
        "final_norm": scale("encoder.final_layer_norm"),
    }
    for i in range(num_layers):
        attention, ff = f"encoder.block.{i}.layer.0", f"encoder.block.{i}.layer.1"
        params[f"block_{i}_attention"] = {n: kernel(f"{attention}.SelfAttention.{n}") for n in "qkvo"}
        params[f"block_{i}_attention_norm"] = scale(f"{attention}.layer_norm")
        params[f"block_{i}_ff"] = {n: kernel(f"{ff}.DenseReluDense.{n}") for n in ("wi_0", "wi_1", "wo")}
        params[f"block_{i}_ff_norm"] = scale(f"{ff}.layer_norm")
    return params


@pytest.mark.filterwarnings("ignore")  # whatever torch and transformers warn about is theirs
@pytest.mark.parametrize("max_length", [1, 40, 256])
def test_embeddings_equal_torch(max_length):
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(**SIZES, feed_forward_proj="gated-gelu")
    reference = T5EncoderModel(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():  # norms and biases away from their initial values
            parameter.add_(0.1 * torch.randn_like(parameter))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, SIZES["vocab_size"], (3, max_length)).astype(np.int32)
    mask = np.arange(max_length) < np.array([[max_length], [max(1, max_length // 2)], [1]])
    with torch.no_grad():
        expected = reference(
            input_ids=torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()
    params = to_params({k: v.detach().numpy() for k, v in reference.state_dict().items()}, SIZES["num_layers"])
    actual = np.asarray(jax.jit(T5Encoder(**SIZES).apply)({"params": params}, ids, mask))
    np.testing.assert_allclose(actual[mask], expected[mask], rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 64), (64, 512)])
def test_buckets_equal_torch(num_buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    relative = np.arange(-1100, 1101)
    expected = T5Attention._relative_position_bucket(
        torch.from_numpy(relative), num_buckets=num_buckets, max_distance=max_distance
    )
    actual = relative_position_bucket(relative, num_buckets=num_buckets, max_distance=max_distance)
    np.testing.assert_array_equal(actual, expected.numpy())
