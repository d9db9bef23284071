// The bias' gradient: column sums of dy (rows, columns), in an order that depends on the shape alone. dy is read once; bound by memory.
//
// The rows are cut into slabs. Each block leaves a row of partial sums, and the last block of a tile of columns to arrive adds those up
// (last_block.cuh); with one slab there is nothing to add.
//
// Launch: block (bx, by) with bx * by = 256, by a power of two; grid (ceil(columns / bx), slabs); a counter for each tile of columns. A block
// owns bx columns of one slab: thread (x, y) adds the slab's rows y, y + by, y + 2 by ... of column x in order, then the by sums of a column
// are added in a fixed tree; the last block does the same with the slabs. A slab without rows gives zeros. Neighbouring threads read
// neighbouring columns; no alignment is asked for. T is float or a half type, sums are float.

#pragma once

#include "common.cuh"
#include "half.cuh"
#include "last_block.cuh"

// The sums of the by values of each column that the block's threads hold; those with threadIdx.y == 0 get them.
__device__ __forceinline__ float sum_of_column(float own, float* sums) {
    const int tile = blockDim.x;
    sums[threadIdx.y * tile + threadIdx.x] = own;
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) sums[threadIdx.y * tile + threadIdx.x] += sums[(threadIdx.y + half) * tile + threadIdx.x];
    }
    return sums[threadIdx.x];  // of thread (x, 0): its own write
}

template <typename T>
__device__ __forceinline__ void column_sums_of(
    IN T* __restrict__ x, float* partial, unsigned* counters, float* __restrict__ out, long long rows, int columns,
    long long rows_per_slab) {
    __shared__ float sums[256];
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const long long begin = blockIdx.y * rows_per_slab;
    const long long end = min(begin + rows_per_slab, rows);
    float sum = 0.0f;
    if (column < columns) {
        for (long long row = begin + threadIdx.y; row < end; row += blockDim.y) sum += to_float(x[row * columns + column]);
    }
    sum = sum_of_column(sum, sums);
    const bool writes = threadIdx.y == 0 && column < columns;
    if (gridDim.y == 1) {
        if (writes) out[column] = sum;
        return;
    }
    if (writes) partial[static_cast<long long>(blockIdx.y) * columns + column] = sum;
    if (!arrives_last(&counters[blockIdx.x], gridDim.y)) return;
    sum = 0.0f;
    if (column < columns) {
        for (unsigned slab = threadIdx.y; slab < gridDim.y; slab += blockDim.y) {
            sum += read_written(&partial[static_cast<long long>(slab) * columns + column]);
        }
    }
    sum = sum_of_column(sum, sums);
    if (writes) out[column] = sum;
}
