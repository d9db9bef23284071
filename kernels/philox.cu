// Random streams on the device: words, uniforms and permutations, bit for bit those of gpucnn/random.py.
//
// Launch: blocks of 256, any grid. A thread owns one Philox block, which is four neighbouring words (philox_bits,
// philox_uniform), or one index (philox_permutation). No alignment is asked for.

#include "common.cuh"
#include "philox.cuh"

// words[i] is word i of the stream (seed, step, purpose).
extern "C" __global__ void __launch_bounds__(256) philox_bits(
    OUT unsigned* __restrict__ words, long long size, unsigned long long seed, unsigned long long step,
    unsigned purpose) {
    for (long long block = grid_stride_begin(); 4 * block < size; block += grid_stride_step()) {
        const PhiloxWords drawn = philox_block(block, seed, step, purpose);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (4 * block + j < size) words[4 * block + j] = drawn.w[j];
        }
    }
}

// values[i] in [0, 1) is made of word i.
extern "C" __global__ void __launch_bounds__(256) philox_uniform(
    OUT float* __restrict__ values, long long size, unsigned long long seed, unsigned long long step,
    unsigned purpose) {
    for (long long block = grid_stride_begin(); 4 * block < size; block += grid_stride_step()) {
        const PhiloxWords drawn = philox_block(block, seed, step, purpose);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (4 * block + j < size) values[4 * block + j] = philox_to_uniform(drawn.w[j]);
        }
    }
}

// result (n,) is a permutation of 0 .. n-1; width = max(bits of n, 6), as random.permutation has it.
extern "C" __global__ void __launch_bounds__(256) philox_permutation(
    OUT long long* __restrict__ result, long long n, int width, unsigned long long seed, unsigned long long step,
    unsigned purpose) {
    unsigned round_keys[FEISTEL_ROUNDS];
#pragma unroll
    for (int block = 0; block < FEISTEL_ROUNDS / 4; ++block) {
        const PhiloxWords drawn = philox_block(block, seed, step, purpose);
#pragma unroll
        for (int j = 0; j < 4; ++j) round_keys[4 * block + j] = drawn.w[j];
    }
    for (long long i = grid_stride_begin(); i < n; i += grid_stride_step()) {
        result[i] = static_cast<long long>(philox_permute(i, n, width, round_keys));
    }
}
