// Dropout of float16 and bfloat16 (dropout.cuh).
//
// Launch: blocks of 256, any grid. A thread owns four neighbouring elements one by one, or in the *x8 instances eight as 16 bytes
// (16-byte aligned arrays, sizes a multiple of 8).
//
// gpucnn: compiled on first use

#include "dropout.cuh"

extern "C" __global__ void __launch_bounds__(256) dropout_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, long long size, IN long long* __restrict__ offset, unsigned threshold,
    float scale, unsigned long long seed, unsigned long long step, unsigned purpose) {
    dropout_elements(x, y, size, dropout_stream(offset, threshold, scale, seed, step, purpose));
}

extern "C" __global__ void __launch_bounds__(256) dropout_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, long long vectors, IN long long* __restrict__ offset, unsigned threshold,
    float scale, unsigned long long seed, unsigned long long step, unsigned purpose) {
    dropout_vectors(x, y, vectors, dropout_stream(offset, threshold, scale, seed, step, purpose));
}

extern "C" __global__ void __launch_bounds__(256) dropout_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, long long size, IN long long* __restrict__ offset, unsigned threshold,
    float scale, unsigned long long seed, unsigned long long step, unsigned purpose) {
    dropout_elements(x, y, size, dropout_stream(offset, threshold, scale, seed, step, purpose));
}

extern "C" __global__ void __launch_bounds__(256) dropout_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, long long vectors, IN long long* __restrict__ offset, unsigned threshold,
    float scale, unsigned long long seed, unsigned long long step, unsigned purpose) {
    dropout_vectors(x, y, vectors, dropout_stream(offset, threshold, scale, seed, step, purpose));
}
