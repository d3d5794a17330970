"""What every network keeps to, whatever its architecture: one entry of NETWORKS is all that a new one needs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict

from imagen_jax.errors import InputError
from imagen_jax.models import make_model
from imagen_jax.models.attention import Attend
from imagen_jax.models.base import check_conditions
from imagen_jax.models.efficient_unet import EfficientUNetEncoder
from imagen_jax.models.unet import UNetEncoder

# A base stage and super-resolution stages, 8 px.
UNET = partial(
    make_model, "unet", channels=8, channel_mults=(1, 2), num_blocks=1, attention_levels=(False, True), head_channels=8
)
EFFICIENT = partial(
    make_model,
    "efficient_unet",
    channels=8,
    channel_mults=(1, 2),
    num_blocks=(1, 1),
    attention=("cross", "joint"),
    num_heads=2,
)
NETWORKS = {
    "unet": (UNET, False),
    "unet, super-resolution": (UNET, True),
    "efficient_unet": (EFFICIENT, True),
}


class Network:
    def __init__(self, make, inputs, has_low_res, random_params):
        self.make = make
        flat = {"z": inputs["z"], "logsnr": inputs["logsnr"], **inputs["conditions"]}
        self.inputs = {name: x for name, x in flat.items() if has_low_res or name not in ("low_res", "aug_logsnr")}
        self.params = random_params(make(), **self.called())
        self.apply = {dtype: jax.jit(make(dtype=dtype).apply) for dtype in ("float32", "bfloat16")}

    def called(self, **changed):
        """What the network is called with, some of it changed."""
        conditions = self.inputs | changed
        return {"z": conditions.pop("z"), "logsnr": conditions.pop("logsnr"), "conditions": conditions}

    def __call__(self, dtype="float32", **changed):
        return np.asarray(self.apply[dtype](self.params, **self.called(**changed)))


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, inputs, random_params):
    make, has_low_res = NETWORKS[request.param]
    return Network(make, inputs, has_low_res, random_params)


def test_predicts_exactly_zero_at_first(network):
    # Whatever the layers before the last one hold. Compiling the `init` of all of them would take seconds.
    init = jax.jit(lambda key: network.make(dtype="float32").init(key, **network.called())["params"]["conv_out"])
    params = {"params": network.params["params"] | {"conv_out": init(jax.random.key(0))}}
    output = network.apply["float32"](params, **network.called())
    np.testing.assert_array_equal(output, np.zeros((2, 8, 8, 3)))
    assert np.abs(network()).mean() > 0.1


def test_parameters_and_output_are_float32_when_computing_in_bfloat16(network):
    output, variables = jax.eval_shape(
        network.make(dtype="bfloat16").init_with_output, jax.random.key(0), **network.called()
    )
    assert output.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_bfloat16_is_close_to_float32(network):
    exact, rounded = network(), network("bfloat16")
    # bfloat16 has 8 bits, and the network some 20 layers.
    assert np.sqrt(np.mean((rounded - exact) ** 2)) < 0.05 * exact.std()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_padded_token_changes_no_output_bit(network, dtype):
    text_emb, mask = network.inputs["text_emb"], network.inputs["text_mask"]
    other = jnp.where(mask[..., None], text_emb, 1000 * text_emb[::-1])
    assert (other != text_emb).any()
    np.testing.assert_array_equal(network(dtype, text_emb=other), network(dtype))


def test_a_real_token_and_the_mask_change_the_output(network):
    text_emb, mask = network.inputs["text_emb"], network.inputs["text_mask"]
    before = network()
    scale = before.std()
    for changed in ({"text_emb": text_emb.at[:, 2].set(text_emb[:, 5])}, {"text_mask": mask.at[:, 5].set(True)}):
        difference = np.abs(network(**changed) - before).mean(axis=(1, 2, 3))
        assert (difference > 1e-3 * scale).all()


def test_every_input_reaches_every_output_pixel(network):
    before = network()
    for name in {"z", "logsnr", "low_res", "aug_logsnr"} & network.inputs.keys():
        difference = np.abs(network(**{name: network.inputs[name] + 1}) - before)
        # 1e-4 of the output's range is no rounding.
        assert (difference.max(axis=-1) > 1e-4 * before.std()).all(), name


def test_an_output_does_not_depend_on_the_rest_of_the_batch(network):
    others = {name: x.at[1].set(x[0]) for name, x in network.inputs.items()}
    np.testing.assert_array_equal(network(**others)[0], network()[0])
    # Other shapes are other programs, which add in another order.
    alone = network(**{name: x[1:] for name, x in network.inputs.items()})
    np.testing.assert_allclose(alone, network()[1:], rtol=0, atol=1e-5 * np.abs(network()).max())


def test_examples_follow_their_inputs_order(network):
    swapped = network(**{name: x[::-1] for name, x in network.inputs.items()})
    np.testing.assert_allclose(swapped, network()[::-1], rtol=0, atol=1e-5 * np.abs(network()).max())


@pytest.mark.parametrize(("make", "has_low_res"), [(UNET, False), (EFFICIENT, True)], ids=["unet", "efficient_unet"])
def test_recomputing_activations_changes_no_gradient_and_every_parameter_has_one(
    make, has_low_res, inputs, random_params
):
    network = Network(make, inputs, has_low_res, random_params)

    def gradients(remat):
        model = make(dtype="float32", remat=remat)

        def loss(params):
            return jnp.mean(jnp.square(model.apply(params, **network.called())))

        return jax.jit(jax.grad(loss))(network.params)

    kept, recomputed = gradients(False), gradients(True)
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(kept))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest), recomputed, kept)
    assert all(np.abs(leaf).max() > 1e-6 * largest for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("name", [name for name, (_, has_low_res) in NETWORKS.items() if has_low_res])
def test_an_augmentation_level_has_a_gradient_at_every_pixel_of_its_own_image(name, inputs, random_params):
    network = Network(NETWORKS[name][0], inputs, True, random_params)

    def output(aug_logsnr):
        return network.apply["float32"](network.params, **network.called(aug_logsnr=aug_logsnr))

    of_first = jax.jit(lambda level: jax.jvp(output, (level,), (jnp.array([1.0, 0.0]),)))
    value, derivative = (np.asarray(x) for x in of_first(network.inputs["aug_logsnr"]))
    assert (np.abs(derivative[0]).max(axis=-1) > 1e-4 * value.std()).all()
    np.testing.assert_array_equal(derivative[1], np.zeros((8, 8, 3)))


def test_an_image_that_cannot_be_halved_is_refused(network):
    wrong = {name: x[:, :, :7] for name, x in network.inputs.items() if x.ndim == 4}
    with pytest.raises(AssertionError, match=r"\(2, 8, 7, 3\)"):
        jax.eval_shape(network.make().apply, network.params, **network.called(**wrong))


def test_the_coarsest_level_is_as_much_smaller_as_it_says(network):
    model = network.make()
    seen = jax.eval_shape(partial(model.apply, capture_intermediates=True), network.params, **network.called())
    # Square ones: an attention's heads have four dimensions too.
    images = [leaf for leaf in jax.tree.leaves(seen) if len(leaf.shape) == 4 and leaf.shape[1] == leaf.shape[2] > 1]
    assert min(leaf.shape[1] for leaf in images) == 8 // model.downsampling


def encode_alone(network):
    """The encode half as a network of its own, with the first half of the network's parameters."""
    model = network.make(dtype="float32")
    kind = {"UNet": UNetEncoder, "EfficientUNet": EfficientUNetEncoder}[type(model).__name__]
    attributes = {key: value for key, value in vars(model).items() if key in model.__dataclass_fields__}
    half = kind(**{key: value for key, value in attributes.items() if key not in ("parent", "name")})
    names = jax.eval_shape(half.init, jax.random.key(0), **network.called())["params"]
    params = {"params": {name: network.params["params"][name] for name in names}}
    return half.apply(params, **network.called())


def test_the_halves_have_the_parameters_of_the_whole_and_residuals_are_added_between_them(network):
    encoded = jax.jit(lambda: encode_alone(network))()
    residuals = [jnp.zeros_like(x) for x in (*encoded.skips, encoded.h)]
    run = jax.jit(partial(network.make(dtype="float32").apply, network.params))
    # Another program, which rounds in other places.
    np.testing.assert_allclose(run(**network.called(), residuals=residuals), network(), rtol=0, atol=1e-5)
    for number in range(len(residuals)):
        changed = [x.at[...].set(0.1) if index == number else x for index, x in enumerate(residuals)]
        difference = np.abs(run(**network.called(), residuals=changed) - network())
        assert difference.max() > 1e-3, number


def test_too_few_residuals_are_refused(network):
    with pytest.raises(ValueError, match="zip"):
        jax.eval_shape(network.make().apply, network.params, **network.called(), residuals=[jnp.zeros(())])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("text_emb", "text_mask", "style"),
            'UNet is given the condition "style", which it doesn\'t know; it knows',
        ),
        (("text_emb",), 'UNet needs the condition "text_mask", which it isn\'t given; it is given: text_emb'),
    ],
)
def test_a_condition_that_it_does_not_know_or_lacks_is_one_clear_error(names, message):
    check_conditions(UNET(), ("text_emb", "text_mask"))
    with pytest.raises(InputError, match=message):
        check_conditions(UNET(), names)


def test_attention_is_computed_where_it_can_be_replaced(network):
    """In a module of its own, without parameters, in every attention layer."""
    shapes = jax.eval_shape(network.make().init, jax.random.key(0), **network.called())["params"]
    layers = {path[:-2] for path in flatten_dict(shapes) if path[-2] in ("qkv", "q")}
    seen = []

    def replace(call, args, kwargs, context):
        if isinstance(context.module, Attend):
            seen.append(context.module.path)
            return jnp.zeros_like(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(replace):
        changed = network.make(dtype="float32").apply(network.params, **network.called())
    assert set(seen) == {(*layer, "attend") for layer in layers}
    assert np.abs(changed - network()).max() > 1e-3
