// Sums over the 32 lanes of a warp, which call together.

#pragma once

// The sum of all lanes' values, in every lane: a butterfly, whose order is fixed.
template <typename T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, lanes);
    return v;
}
