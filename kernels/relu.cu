// ReLU, forward and backward. Bound by memory: 8 bytes an element forward, 12 backward.
//
// Launch: blocks of 256, any grid; a thread owns every grid-th element, or every grid-th float4 in the *_vec4
// instances, which need 16-byte aligned arrays and a size that is a multiple of 4.

#include "common.cuh"

// max(x, 0); every comparison with NaN is false, so NaN stays.
__device__ __forceinline__ float relu(float x) {
    return x <= 0.0f ? 0.0f : x;
}

// The gradient at 0 is 0, as in PyTorch; y is the forward's result.
__device__ __forceinline__ float relu_gradient(float dy, float y) {
    return y > 0.0f ? dy : 0.0f;
}

extern "C" __global__ void __launch_bounds__(256) relu_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = relu(x[i]);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const float4 v = x[i];
        y[i] = make_float4(relu(v.x), relu(v.y), relu(v.z), relu(v.w));
    }
}

extern "C" __global__ void __launch_bounds__(256) relu_backward(
    IN float* __restrict__ dy, IN float* __restrict__ y, OUT float* __restrict__ dx, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) dx[i] = relu_gradient(dy[i], y[i]);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ y, OUT float4* __restrict__ dx, long long vectors) {
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const float4 d = dy[i], v = y[i];
        dx[i] = make_float4(relu_gradient(d.x, v.x), relu_gradient(d.y, v.y), relu_gradient(d.z, v.z),
                            relu_gradient(d.w, v.w));
    }
}
