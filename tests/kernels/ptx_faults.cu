// What the wrappers of kernels/ptx.cuh must not be given.

#include "../../kernels/common.cuh"
#include "../../kernels/ptx.cuh"

// A row at an odd place, or behind the end of shared memory.
extern "C" __global__ void __launch_bounds__(32) load_from(OUT unsigned* __restrict__ y, int offset, int step) {
    extern __shared__ __align__(16) unsigned char bytes[];
    for (int i = threadIdx.x; i < 512; i += 32) bytes[i] = 0;
    __syncwarp();
    unsigned r[4];
    ldmatrix_x4(r, bytes + offset + step * static_cast<int>(threadIdx.x));
    y[threadIdx.x] = r[0] + r[1] + r[2] + r[3];
}

// Half a warp at ldmatrix: all 32 lanes must take part.
extern "C" __global__ void __launch_bounds__(32) half_a_warp(OUT unsigned* __restrict__ y) {
    extern __shared__ uint4 rows[];
    rows[threadIdx.x] = make_uint4(0, 0, 0, 0);
    __syncwarp();
    unsigned r[4] = {};
    if (threadIdx.x < 16) ldmatrix_x4(r, &rows[threadIdx.x]);
    y[threadIdx.x] = r[0];
}
