// Scatter-add in order: out[positions[i]] += values[i] for i = 0, 1, 2, ..., with the rounding of that very loop.
//
// The host sorts keys = position << shift | i, which are all different, so equal positions stand together and in the
// order of i whatever the sorting method. Launch: blocks of 256, any grid; the thread at the first key of a position
// owns that position: it adds its values one after the other to what `out` holds. Other threads do nothing. Time is
// that of the most repeated position. No alignment is asked for.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) scatter_add_sorted(
    IN long long* __restrict__ keys, IN float* __restrict__ values, INOUT float* __restrict__ out,
    long long count, int shift) {
    const long long index_mask = (1LL << shift) - 1;
    for (long long i = grid_stride_begin(); i < count; i += grid_stride_step()) {
        const long long position = keys[i] >> shift;
        if (i > 0 && keys[i - 1] >> shift == position) continue;
        float sum = out[position];
        for (long long j = i; j < count && keys[j] >> shift == position; ++j) sum += values[keys[j] & index_mask];
        out[position] = sum;
    }
}
