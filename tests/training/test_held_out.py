from typing import Any, cast

import grain
import numpy as np

from imagen_jax.training.held_out import HeldOutLoss


def test_it_is_the_mean_of_all_examples_each_once_at_times_that_cover_all_levels():
    seen = []

    class Scaled:
        def loss(self, trainable, frozen, batch, keys, t):
            return trainable["scale"] * (batch["image"][:, 0] + t)

    batches = grain.MapDataset.range(5).map(lambda i: {"image": np.full(1, i, np.float32)}).repeat().batch(2)
    loss = HeldOutLoss(cast(Any, Scaled()), batches.to_iter_dataset(), num_examples=5, seed=0)
    for _ in range(2):  # the same each time
        seen += [dict(loss.run({"scale": np.float32(2)}, 7))]
    expected = 2 * np.mean([i + (i + 0.5) / 5 for i in range(5)])
    np.testing.assert_allclose([each["eval/held_out_loss"] for each in seen], expected, rtol=1e-6)
