"""imagen_jax: cascaded, text-conditioned pixel diffusion (Imagen) in JAX and Flax."""

__version__ = "0.1.0"
