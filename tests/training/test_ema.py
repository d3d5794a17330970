import jax.numpy as jnp
import numpy as np

from imagen_jax.training import ema


def test_decay_warms_up_to_its_value():
    assert float(ema.decay_at(jnp.int32(0), 0.999)) == np.float32(0.1)
    assert float(ema.decay_at(jnp.int32(10_000), 0.999)) == np.float32(0.999)


def test_after_a_warm_up_the_initial_weights_are_forgotten():
    # The share that the initial weights still hold, by feeding zeros to an average that started at one.
    share = {"a": jnp.ones(())}
    for step in range(200):
        share = ema.update(share, {"a": jnp.zeros(())}, step=jnp.int32(step), decay=0.999)
    assert float(share["a"]) < 1e-8


def test_of_constant_parameters_it_is_those():
    average = {"a": jnp.full((2,), 3.0)}
    for step in range(5):
        average = ema.update(average, {"a": jnp.full((2,), 3.0)}, step=jnp.int32(step), decay=0.9)
    np.testing.assert_allclose(average["a"], 3.0, rtol=1e-6)
