// Average pooling of float32, and max pooling of windows of more than 256 taps (pool2d.cuh).
//
// The launch bounds name three or four blocks a multiprocessor because ptxas, left to itself, caps registers lower on some architectures, and spills.
//
// gpucnn: compiled on first use

#include "pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256) avg_pool2d_forward_global(
    IN float* __restrict__ x, OUT float* __restrict__ y, int pixels, int columns, float share) {
    avg_forward_global(x, y, pixels, columns, share);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_backward(
    IN float* __restrict__ dy, OUT float* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward(dy, dx, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256) avg_pool2d_forward_global_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, int pixels, int columns, float share) {
    avg_forward_global(x, y, pixels, columns, share);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_backward_vec4(
    IN float4* __restrict__ dy, OUT float4* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward(dy, dx, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_wide(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT int* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_wide(
    IN float* __restrict__ dy, IN int* __restrict__ index, OUT float* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}
