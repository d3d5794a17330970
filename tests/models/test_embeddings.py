import jax
import jax.numpy as jnp
import numpy as np

from imagen_jax.models.embeddings import Conditioning, NoiseLevelEmbedding, sinusoid


def test_sinusoid_has_cosines_then_sines_of_falling_frequencies():
    values = np.array([0.0, 1.0, np.pi / 2, -3.0])
    result = sinusoid(jnp.asarray(values, jnp.float32), 6, max_period=1000.0)
    angles = values[:, None] * np.array([[1.0, 0.1, 0.01]])
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, np.concatenate([np.cos(angles), np.sin(angles)], axis=1), rtol=0, atol=1e-6)


def test_nearby_noise_levels_are_told_apart_everywhere(random_params):
    embedding = NoiseLevelEmbedding(64)
    logsnr = jnp.arange(-18.0, 18.1, 1.0)
    emb = np.asarray(jax.jit(embedding.apply)(random_params(embedding, logsnr), logsnr))
    assert emb.shape == (37, 64)
    # The steps of 1 at the ends are small in t, 1e-4 of its range and less: the sinusoid is of 1000 t.
    assert (np.abs(np.diff(emb, axis=0)).max(axis=1) > 1e-4).all()
    assert np.abs(np.diff(emb[8:-8], axis=0)).max(axis=1).min() > 0.05


def test_noise_levels_beyond_twenty_are_finite_and_as_at_twenty(random_params):
    embedding = NoiseLevelEmbedding(16)
    logsnr = jnp.array([-1e4, -20.0, 20.0, 1e4])
    emb = jax.jit(embedding.apply)(random_params(embedding, logsnr), logsnr)
    assert np.isfinite(emb).all()
    np.testing.assert_array_equal(emb[0], emb[1])
    np.testing.assert_array_equal(emb[2], emb[3])


def test_noise_level_text_and_augmentation_level_are_summed(random_params, inputs):
    conditioning = Conditioning(32)
    names = ("text_emb", "text_mask", "aug_logsnr")
    told = {name: inputs["conditions"][name] for name in names}
    params = random_params(conditioning, inputs["logsnr"], told)
    apply = jax.jit(conditioning.apply)

    def emb(**changed):
        values = {"logsnr": inputs["logsnr"]} | told | changed
        return np.asarray(apply(params, values.pop("logsnr"), values))

    other_level = {"logsnr": jnp.array([0.0, -5.0])}
    other_text = {name: told[name][:, ::-1] for name in ("text_emb", "text_mask")}
    other_aug = {"aug_logsnr": jnp.array([-1.0, 0.0])}
    none = emb()
    changes = [emb(**other) - none for other in (other_level, other_text, other_aug)]
    assert all(np.abs(change).mean() > 0.05 for change in changes[::2])
    np.testing.assert_allclose(emb(**other_level, **other_text, **other_aug) - none, sum(changes), rtol=0, atol=1e-5)
