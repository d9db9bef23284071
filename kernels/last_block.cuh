// Which block of a launch arrives last: it finds what all others wrote, and finishes what they began (the sum of their partial results), so
// that no second launch is needed. The order of arrival differs from run to run; the last block therefore reads the parts of all blocks, its
// own too, from memory, in an order that does not depend on it, and results stay the same bits.
//
//     partial[block] = ...;                                   every block
//     if (!arrives_last(&counters[tile], blocks)) return;     `blocks` of them share a counter
//     for (i = 0; i < blocks; ++i) sum += read_written(&partial[i]);
//
// Counters begin at 0 and are back at 0 when the launch ends: the host zeroes them once (Backend.counters).
// See the CUDA C++ Programming Guide, "Memory Fence Functions", whose example this follows.

#pragma once

#include "common.cuh"

// True, for all threads alike, in the last of `blocks` blocks that call it for a counter. Every thread of the block must call it.
__device__ __forceinline__ bool arrives_last(unsigned* counter, unsigned blocks) {
    __shared__ bool last;
    __threadfence();  // what this thread wrote is seen by all before the count is
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0 && threadIdx.z == 0) {
        last = atomicInc(counter, blocks - 1) == blocks - 1;  // the last one brings it back to 0
    }
    __syncthreads();
    __threadfence();  // what follows is read after the count
    return last;
}

// Reads what another block of this launch wrote: from the level-2 cache, for a multiprocessor's own may hold what was there before.
__device__ __forceinline__ float read_written(const float* from) {
    return __ldcg(from);
}

__device__ __forceinline__ float4 read_written(const float4* from) {
    return __ldcg(from);
}
