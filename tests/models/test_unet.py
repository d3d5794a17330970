import jax

from imagen_jax.models.unet import UNet


def parameters(model, inputs):
    conditions = {name: inputs["conditions"][name] for name in ("text_emb", "text_mask")}
    return jax.eval_shape(model.init, jax.random.key(0), **(inputs | {"conditions": conditions}))["params"]


def test_blocks_stand_where_the_arguments_say(inputs):
    params = parameters(
        UNet(channels=8, channel_mults=(1, 2, 3), num_blocks=2, attention_levels=(False, True, False)), inputs
    )
    names = {name for name in params if name.startswith(("down", "up", "middle"))}
    expected = {f"down{level}_block{block}" for level in range(3) for block in range(2)}
    expected |= {f"up{level}_block{block}" for level in range(3) for block in range(3)}
    expected |= {"down0_resample", "down1_resample", "up2_resample", "up1_resample", "middle_block0", "middle_block1"}
    # The middle is at the last level, which has none.
    expected |= {"down1_attention0", "down1_attention1", "up1_attention0", "up1_attention1", "up1_attention2"}
    assert names == expected
    assert params["down2_block0"]["conv_out"]["kernel"].shape == (3, 3, 24, 24)
