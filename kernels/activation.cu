// GELU, exact and by tanh, and SiLU, forward and backward (activation.cuh). Bound by memory: 8 bytes an element forward, 12
// backward; so backward computes what it needs anew from x, which costs less than to write and read it.
//
// Launch: blocks of 256, any grid; a thread owns every grid-th element, or every grid-th float4 in the *_vec4
// instances, which need 16-byte aligned arrays and a size that is a multiple of 4.

#include "activation.cuh"

extern "C" __global__ void __launch_bounds__(256) gelu_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    activation_forward<Gelu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    activation_forward<Gelu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) gelu_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long size) {
    activation_backward<Gelu>(dy, x, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long vectors) {
    activation_backward<Gelu>(dy, x, dx, vectors);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    activation_forward<GeluTanh>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    activation_forward<GeluTanh>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long size) {
    activation_backward<GeluTanh>(dy, x, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) gelu_tanh_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long vectors) {
    activation_backward<GeluTanh>(dy, x, dx, vectors);
}

extern "C" __global__ void __launch_bounds__(256) silu_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    activation_forward<Silu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) silu_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors) {
    activation_forward<Silu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) silu_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long size) {
    activation_backward<Silu>(dy, x, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) silu_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long vectors) {
    activation_backward<Silu>(dy, x, dx, vectors);
}
