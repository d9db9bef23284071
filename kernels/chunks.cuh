// Updates of many arrays in one launch: the arrays come as tables of pointers, and blocks take chunks of them in turn.
//
// Array t has sizes[t] elements (at least one) and is cut into chunks of CHUNK; first_chunk[t] counts the chunks of the
// arrays before it, first_chunk[arrays] all (gpucnn/backends/cuda/chunks.py makes both tables).
//
// Launch: blocks of 256, any grid; a block owns a chunk at a time and finds its array by bisection; thread j owns the
// chunk's elements j, j + 256, ... No alignment is asked for: parameters may be slices.

#pragma once

#include "common.cuh"

constexpr int CHUNK = 2048;

struct Chunk {
    int array;
    long long begin, end;  // elements of that array
};

__device__ __forceinline__ Chunk find_chunk(
    long long chunk, IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, int arrays) {
    int low = 0, high = arrays;  // first_chunk[low] <= chunk < first_chunk[high]
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (first_chunk[middle] <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const long long begin = (chunk - first_chunk[low]) * CHUNK;
    return {low, begin, min(begin + CHUNK, sizes[low])};
}

// average + (1 - kept) * (value - average), from the end that is nearer: exact for kept = 0 and for kept = 1.
__device__ __forceinline__ float blend(float average, float value, float kept, float one_minus_kept) {
    const float way = value - average;
    return kept < 0.5f ? fmaf(-kept, way, value) : fmaf(one_minus_kept, way, average);
}
