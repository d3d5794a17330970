"""What every test runs under: the CPU as 8 devices, a shared compilation cache, and strict shapes."""

import os
from pathlib import Path

_REPO = Path(__file__).resolve().parents[1]

# In the environment rather than by jax.config, so that the mains which tests start as subprocesses inherit it, and
# before jax is imported, which reads it once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_REPO / ".jax_cache")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Half the time to compile, which is most of the tests' time; what runs is small.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"

import jax  # noqa: E402

# Not inherited: a subprocess is a user's run on one device, unless its test asks for more by JAX_NUM_CPU_DEVICES.
jax.config.update("jax_num_cpu_devices", 8)


def pytest_collection_modifyitems(items):
    """Tests of whole runs first, each file of which takes minutes: at the end a worker would be alone with the last."""
    items.sort(key=lambda item: item.path.parent != _REPO / "tests")
