// Dropout of float32 (dropout.cuh).
//
// Launch: blocks of 256, any grid. A thread owns one Philox block, that is four neighbouring elements. dropout_vec4 moves them
// as one float4 (16-byte aligned arrays, sizes a multiple of 4), dropout one by one.

#include "dropout.cuh"

extern "C" __global__ void __launch_bounds__(256) dropout(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long size, IN long long* __restrict__ offset, unsigned threshold,
    float scale, unsigned long long seed, unsigned long long step, unsigned purpose) {
    dropout_elements(x, y, size, dropout_stream(offset, threshold, scale, seed, step, purpose));
}

extern "C" __global__ void __launch_bounds__(256) dropout_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long vectors, IN long long* __restrict__ offset, unsigned threshold,
    float scale, unsigned long long seed, unsigned long long step, unsigned purpose) {
    dropout_vectors(x, y, vectors, dropout_stream(offset, threshold, scale, seed, step, purpose));
}
