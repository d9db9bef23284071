// What every kernel file includes: the directions of pointer arguments and a few helpers.
//
// A kernel's declaration tells the host everything that it checks at a launch (gpucnn/backends/declarations.py reads it), so each
// pointer argument says what the kernel does with it:
//
//     extern "C" __global__ void __launch_bounds__(256) relu_forward(
//         IN float* __restrict__ x, OUT float* __restrict__ y, long long size)
//
// A pointer to float4 asks for an array of float32 that starts at a multiple of 16 bytes and whose size is a multiple of 4.

#pragma once

#define IN const  // only read
#define OUT       // every element is written, by exactly one thread, and none is read before
#define INOUT     // read and written

constexpr int INFINITY_BITS = 0x7F800000, NAN_BITS = 0x7FFFFFFF;  // NVRTC has no <math.h> with INFINITY and NAN

// The least integer that is not below a / b, for a >= 0 and b > 0.
template <typename T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
    return a / b + (a % b != 0);
}

// The loop `for (long long i = grid_stride_begin(); i < size; i += grid_stride_step())` covers any size with any grid: neighbouring
// threads take neighbouring elements, and the whole grid moves on together.
__device__ __forceinline__ long long grid_stride_begin() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ long long grid_stride_step() {
    return static_cast<long long>(gridDim.x) * blockDim.x;
}
