// Adaptive max and average pooling of float32 (adaptive_pool2d.cuh).
//
// gpucnn: compiled on first use

#include "adaptive_pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT int* __restrict__ index, AdaptivePool2dGeometry g) {
    adaptive_max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward(
    IN float* __restrict__ dy, IN int* __restrict__ index, OUT float* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, AdaptivePool2dGeometry g) {
    adaptive_avg_forward(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_backward(
    IN float* __restrict__ dy, OUT float* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_avg_backward(dy, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, OUT int4* __restrict__ index, AdaptivePool2dGeometry g) {
    adaptive_max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_max_pool2d_backward_vec4(
    IN float4* __restrict__ dy, IN int4* __restrict__ index, OUT float4* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, AdaptivePool2dGeometry g) {
    adaptive_avg_forward(x, y, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) adaptive_avg_pool2d_backward_vec4(
    IN float4* __restrict__ dy, OUT float4* __restrict__ dx, AdaptivePool2dGeometry g) {
    adaptive_avg_backward(dy, dx, g);
}
