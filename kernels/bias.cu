// The bias' gradient: column sums of dy (rows, columns), in an order that depends on the shape alone.
//
// The rows are cut into slabs; column_sums writes one row of partial sums a slab, and is launched again on those
// until one row is left.
//
// Launch: block (bx, by) with bx * by = 256, by a power of two; grid (ceil(columns / bx), slabs). A block owns bx
// columns of one slab: thread (x, y) adds the slab's rows y, y + by, y + 2 by ... of column x in order, then the by
// sums of a column are added in a fixed tree. A slab without rows gives zeros. Neighbouring threads read neighbouring
// columns; no alignment is asked for.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) column_sums(
    IN float* __restrict__ x, OUT float* __restrict__ partial, long long rows, int columns, long long rows_per_slab) {
    __shared__ float sums[256];
    const int tile = blockDim.x;
    const int column = blockIdx.x * tile + threadIdx.x;
    const long long begin = blockIdx.y * rows_per_slab;
    const long long end = min(begin + rows_per_slab, rows);
    float sum = 0.0f;
    if (column < columns) {
        for (long long row = begin + threadIdx.y; row < end; row += blockDim.y) sum += x[row * columns + column];
    }
    sums[threadIdx.y * tile + threadIdx.x] = sum;
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
            sums[threadIdx.y * tile + threadIdx.x] += sums[(threadIdx.y + half) * tile + threadIdx.x];
        }
    }
    if (threadIdx.y == 0 && column < columns) {
        partial[static_cast<long long>(blockIdx.y) * columns + column] = sums[threadIdx.x];
    }
}
