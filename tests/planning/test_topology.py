import math

import jax
import pytest

from imagen_jax.errors import InputError
from imagen_jax.planning import topology
from imagen_jax.planning.topology import CHIPS, abstract_devices, has_compiler, parse_topology, running_on

NAMES = [f"{kind}:{shape}" for kind, chip in CHIPS.items() for shape in chip.shapes]


@pytest.mark.parametrize("name", NAMES)
def test_every_slice_listed_is_one(name):
    parsed = parse_topology(name)
    kind, shape = name.split(":")
    assert parsed.chip is CHIPS[kind]
    assert parsed.num_chips == math.prod(map(int, shape.split("x")))


def test_the_axes_may_stand_in_any_order():
    assert parse_topology("v4:8x8x4").num_chips == parse_topology("v4:4x8x8").num_chips == 256


@pytest.mark.parametrize("name", ["v4:3x3x3", "v4:4x4", "v5e:2x2x1", "v5e:foo", "v5e:", "v5e:-2x-2"])
def test_a_slice_that_does_not_exist_names_those_that_do(name):
    kind = name.split(":")[0]
    with pytest.raises(InputError, match=f'no topology "{name}"; choose from: {kind}:{CHIPS[kind].shapes[0]}, '):
        parse_topology(name)


def test_a_chip_that_does_not_exist_names_those_that_do():
    with pytest.raises(InputError, match='unknown chip "v9"; choose from: v4, v5e, v5p, v6e'):
        parse_topology("v9:2x2")
    with pytest.raises(InputError, match='"v4" is no topology; expected CHIP:SHAPE, with CHIP one of v4, v5e'):
        parse_topology("v4")


def test_without_the_compiler_its_installation_is_named(monkeypatch):
    monkeypatch.setattr(topology, "has_compiler", lambda: False)
    with pytest.raises(InputError, match=r"pip install -e '\.\[tpu\]'"):
        abstract_devices(parse_topology("v4:2x2x1"))


def test_a_machine_without_known_chips_is_none():
    assert running_on(jax.devices()) is None


@pytest.mark.skipif(not has_compiler(), reason="no libtpu")
@pytest.mark.parametrize("name", ["v4:8x8x4", "v5e:16x16", "v5p:8x8x4", "v6e:2x4"])
def test_the_compiler_has_a_device_for_each_chip(name):
    devices = abstract_devices(parse_topology(name))
    assert len(devices) == parse_topology(name).num_chips
    found = running_on(devices)
    assert found
    assert found.chip is parse_topology(name).chip
    assert {device.platform for device in devices} == {"tpu"}
