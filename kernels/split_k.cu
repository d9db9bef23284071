// The second half of split-K: adds up the partial sums that the blocks of wgrad and gemm left, always in the same order, so that results
// are the same bits in every run. (Atomic additions would come in the order in which blocks happen to finish.)
//
// Launch: any grid and block (grid-stride); a thread owns whole elements of the result. Reads splits * size floats, writes size.

#include "common.cuh"

// out[i] = partial[0][i] + partial[1][i] + ... + bias[i % columns]; bias may be null.
extern "C" __global__ void __launch_bounds__(256) split_k_reduce(
    IN float* __restrict__ partial, IN float* __restrict__ bias, OUT float* __restrict__ out, long long size, int columns, int splits) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) {
        float sum = partial[i];
#pragma unroll 16  // the sums wait for each other, the reads need not
        for (int split = 1; split < splits; ++split) sum += partial[split * size + i];
        out[i] = bias == nullptr ? sum : sum + bias[i % columns];
    }
}
