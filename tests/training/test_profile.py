import jax
import jax.numpy as jnp

from imagen_jax.training.profile import Profiler


def train(folder, steps, *, first_step, num_steps):
    """The steps at which a recording was going on."""
    profiler, recorded = Profiler(folder, steps), []
    double = jax.jit(lambda x: 2 * x)
    for step in range(first_step, num_steps):
        profiler.before(step)
        if profiler._recording:
            recorded.append(step)
        profiler.after(step + 1, double(jnp.ones(3)))
    profiler.close()
    return recorded


def test_the_steps_asked_for_are_recorded(tmp_path):
    assert train(tmp_path, range(2, 4), first_step=0, num_steps=6) == [2, 3]
    assert list(tmp_path.rglob("*.xplane.pb"))


def test_a_run_that_goes_on_or_ends_in_between_records_what_there_is(tmp_path):
    assert train(tmp_path / "on", range(2, 5), first_step=4, num_steps=6) == [4]
    assert train(tmp_path / "end", range(2, 9), first_step=0, num_steps=4) == [2, 3]
    assert all(list((tmp_path / name).rglob("*.xplane.pb")) for name in ("on", "end"))
    assert train(tmp_path / "none", range(0), first_step=0, num_steps=2) == []
    assert not (tmp_path / "none").exists()
