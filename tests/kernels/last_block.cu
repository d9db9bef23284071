// What tests/kernels/test_last_block.py launches.

#include "../../kernels/last_block.cuh"

// out[tile] = the sum over blocks y of (y + 1) * scale, each block's own term written by its last thread.
extern "C" __global__ void __launch_bounds__(64) sum_by_last_block(
    OUT float* __restrict__ partial, INOUT unsigned* counters, OUT float* __restrict__ out, float scale) {
    const int tile = blockIdx.x, tiles = gridDim.x, blocks = gridDim.y;
    if (threadIdx.x == blockDim.x - 1) partial[blockIdx.y * tiles + tile] = (blockIdx.y + 1) * scale;
    if (!arrives_last(&counters[tile], blocks)) return;
    if (threadIdx.x > 0) return;
    float sum = 0.0f;
    for (int block = 0; block < blocks; ++block) sum += read_written(&partial[block * tiles + tile]);
    out[tile] = sum;
}
