from imagen_jax.planning.collectives import Collectives, count_collectives

PROGRAM = """
HloModule step
ENTRY %main (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %all-reduce = f32[8,4]{1,0} all-reduce(%a), channel_id=1, to_apply=%add
  %all-reduce.1 = (f32[16]{0}, bf16[2,3]{1,0}, /*index=2*/s32[]) all-reduce(%b, %c, %d), to_apply=%add
  %ag = (bf16[4]{0}, bf16[32]{0}) all-gather-start(%e), dimensions={0}
  %cp = (f32[2,3]{1,0:T(2,128)}, f32[2,3]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%f), channel_id=3
  %agd = bf16[32]{0} all-gather-done(%ag)
  ROOT %fusion = f32[8,4]{1,0} fusion(%all-reduce), metadata={op_name="all-reduce of (x)"}
}
"""


def test_instructions_are_counted_with_the_bytes_of_their_results():
    assert count_collectives(PROGRAM) == {
        "all-reduce": Collectives(2, 8 * 4 * 4 + 16 * 4 + 6 * 2 + 4),
        "all-gather": Collectives(1, 64),
        "collective-permute": Collectives(1, 24),
    }
