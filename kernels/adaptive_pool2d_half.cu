// Adaptive max and average pooling of float16 and bfloat16 (adaptive_pool2d.cuh): compared as they are, added up in float32.
//
// gpucnn: compiled on first use

#include "adaptive_pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_forward_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, OUT int* __restrict__ index, AdaptivePool2dGeometry g) {
    adaptive_max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward_float16(
    IN float16* __restrict__ dy, IN int* __restrict__ index, OUT float16* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_forward_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, AdaptivePool2dGeometry g) {
    adaptive_avg_forward(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_backward_float16(
    IN float16* __restrict__ dy, OUT float16* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_avg_backward(dy, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_forward_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, OUT intx8* __restrict__ index, AdaptivePool2dGeometry g) {
    adaptive_max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward_float16x8(
    IN float16x8* __restrict__ dy, IN intx8* __restrict__ index, OUT float16x8* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_forward_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, AdaptivePool2dGeometry g) {
    adaptive_avg_forward(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_backward_float16x8(
    IN float16x8* __restrict__ dy, OUT float16x8* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_avg_backward(dy, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_forward_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, OUT int* __restrict__ index, AdaptivePool2dGeometry g) {
    adaptive_max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward_bfloat16(
    IN bfloat16* __restrict__ dy, IN int* __restrict__ index, OUT bfloat16* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_forward_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, AdaptivePool2dGeometry g) {
    adaptive_avg_forward(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_backward_bfloat16(
    IN bfloat16* __restrict__ dy, OUT bfloat16* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_avg_backward(dy, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_forward_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, OUT intx8* __restrict__ index, AdaptivePool2dGeometry g) {
    adaptive_max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN intx8* __restrict__ index, OUT bfloat16x8* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_forward_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, AdaptivePool2dGeometry g) {
    adaptive_avg_forward(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_backward_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, OUT bfloat16x8* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_avg_backward(dy, dx, g);
}
