"""The launch code of the CUDA kernels, and what compiles, caches and starts them."""
