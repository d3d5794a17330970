"""The maths of diffusion, in jax.numpy only: no networks, no config, no files."""
