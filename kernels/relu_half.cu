// ReLU of float16 and bfloat16 (activation.cuh). Bound by memory: 4 bytes an element forward, 6 backward.
//
// Launch: blocks of 256, any grid; a thread owns every grid-th element, or every grid-th 16 bytes in the *x8 instances,
// which need 16-byte aligned arrays and a size that is a multiple of 8.
//
// gpucnn: compiled on first use

#include "activation.cuh"

extern "C" __global__ void __launch_bounds__(256) relu_forward_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, long long size) {
    activation_forward<Relu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, long long vectors) {
    activation_forward<Relu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, long long size) {
    activation_forward<Relu>(x, y, size);
}

extern "C" __global__ void __launch_bounds__(256) relu_forward_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, long long vectors) {
    activation_forward<Relu>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_float16(
    IN float16* __restrict__ dy, IN float16* __restrict__ y, OUT float16* __restrict__ dx, long long size) {
    activation_backward<Relu>(dy, y, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_float16x8(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ y, OUT float16x8* __restrict__ dx, long long vectors) {
    activation_backward<Relu>(dy, y, dx, vectors);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_bfloat16(
    IN bfloat16* __restrict__ dy, IN bfloat16* __restrict__ y, OUT bfloat16* __restrict__ dx, long long size) {
    activation_backward<Relu>(dy, y, dx, size);
}

extern "C" __global__ void __launch_bounds__(256) relu_backward_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN bfloat16x8* __restrict__ y, OUT bfloat16x8* __restrict__ dx, long long vectors) {
    activation_backward<Relu>(dy, y, dx, vectors);
}
