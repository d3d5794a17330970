from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax.errors import InputError
from imagen_jax.training.optimizer import OPTIMIZERS, learning_rate_schedule, make_optimizer

SETTINGS: dict[str, Any] = {"learning_rate": 0.1, "warmup_steps": 5, "decay_steps": 300, "grad_clip_norm": 1.0}


def at(rate: optax.Schedule, step: int) -> float:
    return float(np.asarray(rate(step)))


def test_the_rate_rises_to_its_peak_and_falls_to_zero():
    rate = learning_rate_schedule(1e-4, warmup_steps=10, decay_steps=100)
    assert at(rate, 0) == 0
    np.testing.assert_allclose(at(rate, 10), 1e-4, rtol=1e-6)
    # A cosine from step 10 to 100: half the peak in the middle.
    np.testing.assert_allclose(at(rate, 55), 0.5e-4, rtol=1e-3)
    assert abs(at(rate, 100)) < 1e-12


def test_without_decay_the_rate_stays():
    rate = learning_rate_schedule(1e-4, warmup_steps=10, decay_steps=0)
    np.testing.assert_allclose([at(rate, 5), at(rate, 10), at(rate, 10**6)], [0.5e-4, 1e-4, 1e-4], rtol=1e-6)


def test_without_warm_up_and_decay_the_rate_is_constant():
    rate = learning_rate_schedule(1e-4, warmup_steps=0, decay_steps=0)
    np.testing.assert_allclose([at(rate, 0), at(rate, 10)], 1e-4, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_finds_the_minimum_of_a_parabola(name):
    optimizer = make_optimizer(name, **SETTINGS)
    params = {"w": jnp.full((4, 4), 2.0)}

    @jax.jit
    def step(params, state):
        grads = jax.grad(lambda p: jnp.sum(jnp.square(p["w"] - 1.0)))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(300):
        params, state = step(params, state)
    np.testing.assert_allclose(params["w"], 1.0, atol=0.05)


def test_clipping_bounds_the_norm_of_the_gradient():
    optimizer = make_optimizer("adam", **SETTINGS, b1=0.0)
    params = {"w": jnp.zeros((2,))}
    _, state = optimizer.update({"w": jnp.array([300.0, 400.0])}, optimizer.init(params), params)
    # Adam's second moment has seen the clipped gradient (0.6, 0.8).
    nu = next(s.nu for s in jax.tree.leaves(state, is_leaf=lambda s: hasattr(s, "nu")) if hasattr(s, "nu"))
    np.testing.assert_allclose(nu["w"], 0.001 * np.array([0.36, 0.64]), rtol=1e-4)


def test_weight_decay_shrinks_kernels_and_nothing_else():
    settings = SETTINGS | {"warmup_steps": 0, "decay_steps": 0}
    optimizer = make_optimizer("adamw", **settings, weight_decay=0.01)
    params = {"kernel": jnp.full((3, 3), 2.0), "conv": jnp.full((1, 1, 3, 3), 2.0), "bias": jnp.full((3,), 2.0)}
    updates: Any = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)[0]
    # Of no gradient, learning rate 0.1: 0.1 * 0.01 * 2.
    np.testing.assert_allclose(updates["kernel"], -0.002, rtol=1e-6)
    np.testing.assert_allclose(updates["conv"], -0.002, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_without_weight_decay_adamw_is_adam():
    params = {"kernel": jnp.full((3, 3), 2.0)}
    grads = {"kernel": jnp.linspace(-1.0, 1.0, 9).reshape(3, 3)}
    updates: dict[str, Any] = {}
    for name in ("adam", "adamw"):
        optimizer = make_optimizer(name, **SETTINGS | {"warmup_steps": 0})
        updates[name], _ = optimizer.update(grads, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["adamw"]["kernel"], updates["adam"]["kernel"])


def test_the_state_of_adamw_does_not_depend_on_the_decay():
    params = {"kernel": jnp.zeros((3, 3)), "bias": jnp.zeros((3,))}
    without, with_decay = (
        jax.eval_shape(make_optimizer("adamw", **SETTINGS, weight_decay=value).init, params) for value in (0.0, 0.1)
    )
    assert with_decay == without


@pytest.mark.parametrize("name", ["adam", "adafactor"])
def test_weight_decay_with_an_optimizer_that_has_none_is_refused(name):
    with pytest.raises(InputError, match=rf"weight_decay = 0\.1 is for adamw; with {name} it must be 0"):
        make_optimizer(name, **SETTINGS, weight_decay=0.1)


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(InputError, match="adafactor, adam, adamw"):
        make_optimizer("adamm", **SETTINGS)
