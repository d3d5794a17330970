from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imagen_jax.models.efficient_unet import RSQRT2_PLACES, EfficientUNet
from imagen_jax.training.state import count_parameters


def tiny(**changed):
    arguments = {"channels": 8, "channel_mults": (1, 2), "num_blocks": (1, 2), "attention": ("none", "cross")}
    return EfficientUNet(**(arguments | {"num_heads": 2, "dtype": jnp.float32} | changed))


def test_predicts_the_scaled_low_resolution_input_at_first_when_that_is_added(inputs, random_params):
    model = tiny(low_res_residual=True)
    init = jax.jit(lambda key: model.init(key, **inputs)["params"]["conv_out"])
    params = random_params(model, **inputs)["params"] | {"conv_out": init(jax.random.key(0))}
    output = jax.jit(model.apply)({"params": params}, **inputs)
    alpha = np.sqrt(1 / (1 + np.exp(-np.asarray(inputs["conditions"]["aug_logsnr"]))))
    np.testing.assert_allclose(
        output, alpha[:, None, None, None] * inputs["conditions"]["low_res"], rtol=1e-5, atol=1e-6
    )


def test_a_residual_on_no_low_resolution_input_is_refused(inputs):
    base = inputs | {"conditions": {name: inputs["conditions"][name] for name in ("text_emb", "text_mask")}}
    with pytest.raises(KeyError, match="aug_logsnr"):
        jax.eval_shape(tiny(low_res_residual=True).init, jax.random.key(0), **base)


def test_a_network_trained_on_crops_runs_on_whole_images(inputs, random_params):
    model = tiny(skip_per_block=False)
    params = random_params(model, **inputs)
    whole = jax.tree.map(lambda x: jnp.tile(x, (1, 2, 3, 1)) if x.ndim == 4 else x, inputs)
    output = jax.jit(model.apply)(params, **whole)
    assert output.shape == (2, 16, 24, 3) and np.isfinite(output).all()


def test_attention_stands_where_and_as_the_arguments_say(inputs):
    params = jax.eval_shape(tiny(attention=("cross", "joint")).init, jax.random.key(0), **inputs)["params"]
    assert {name for name in params if "attention" in name} == {
        f"{way}{i}_attention" for way in ("down", "up") for i in (0, 1)
    }
    assert "q" in params["down0_attention"] and "qkv" in params["down1_attention"]
    params = jax.eval_shape(tiny(attention=("none", "none")).init, jax.random.key(0), **inputs)["params"]
    assert not any("attention" in name for name in params)


def test_one_skip_a_level_takes_fewer_parameters_than_one_a_block(inputs):
    per_block, per_level = (
        count_parameters(jax.eval_shape(tiny(skip_per_block=each).init, jax.random.key(0), **inputs))
        for each in (True, False)
    )
    # The second block of the second level, 16 channels wide, takes in 16 more: norm, first convolution, shortcut.
    assert per_block - per_level == 2 * 16 + 9 * 16 * 16 + 16 * 16


def test_levels_and_blocks_of_different_number_are_refused(inputs):
    with pytest.raises(ValueError, match="zip"):
        jax.eval_shape(tiny(num_blocks=(1, 2, 3)).init, jax.random.key(0), **inputs)


def inputs_and_outputs(model, variables, inputs):
    """Of every part of the network by its path: (its input, its output)."""
    seen = {}

    def keep(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if args:
            seen["/".join(context.module.path)] = (args[0], result)
        return result

    with nn.intercept_methods(keep):
        output = model.apply(variables, **inputs)
    return seen | {"": (inputs["z"], output)}


def test_one_over_the_square_root_of_two_stands_in_the_one_place_that_is_named(inputs, random_params):
    half = 0.5**0.5
    factors = {"skip": (half, 1, 1), "shortcut": (1, half, 1), "residual": (1, 1, half)}
    assert factors.keys() == RSQRT2_PLACES.keys()
    variables = random_params(tiny(), **inputs)
    outputs = []
    for place, (of_skip, of_shortcut, of_sum) in factors.items():
        run = jax.jit(partial(inputs_and_outputs, tiny(rsqrt2_on=place), inputs=inputs))
        parts = jax.tree.map(np.asarray, run(variables))
        blocks = [name for name in parts if f"{name}/shortcut" in parts]
        assert len(blocks) == 6
        for name in blocks:
            (_, shortcut), (_, residual), (_, result) = (parts[name + end] for end in ("/shortcut", "/conv_out", ""))
            np.testing.assert_allclose(result, of_sum * (of_shortcut * shortcut + residual), rtol=0, atol=1e-5)
        # Between these two blocks on the way up stands a skip connection, and nothing else.
        joined = [parts["up1_block0"][1], of_skip * parts["down1_block0"][1]]
        np.testing.assert_allclose(parts["up1_block1"][0], np.concatenate(joined, axis=-1), rtol=0, atol=1e-5)
        outputs.append(parts[""][1])
    for i in range(3):
        assert np.abs(outputs[i] - outputs[i - 1]).mean() > 0.01 * outputs[i].std()


def test_the_place_of_one_over_the_square_root_of_two_changes_no_parameter(inputs):
    trees = [jax.eval_shape(tiny(rsqrt2_on=place).init, jax.random.key(0), **inputs) for place in RSQRT2_PLACES]
    assert trees[0] == trees[1] == trees[2]
