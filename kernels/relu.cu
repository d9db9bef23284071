// ReLU, forward and backward (activation.cuh). Bound by memory: 8 bytes an element forward, 12 backward.
//
// Launch: blocks of 256, any grid; a thread owns every grid-th element, or every grid-th float4 in the *_vec4
// instances, which need 16-byte aligned arrays and a size that is a multiple of 4.

#include "activation.cuh"

extern "C" __global__ void __launch_bounds__(256) relu_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    activation_forward<Relu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    activation_forward<Relu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward(
    IN float* __restrict__ dy, IN float* __restrict__ y, OUT float* __restrict__ dx, long long size) {
    activation_backward<Relu>(dy, y, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ y, OUT float4* __restrict__ dx, long long vectors) {
    activation_backward<Relu>(dy, y, dx, vectors);
}
