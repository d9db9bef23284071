"""The CPU backend: NumPy, its BLAS, and threads over blocks that stay in cache."""

from gpucnn.backends.numpy.backend import NumpyBackend

__all__ = ["NumpyBackend"]
