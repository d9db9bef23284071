// Uses of every wrapper of kernels/ptx.cuh: the neighbour's element comes through shared memory.

#include "../../kernels/common.cuh"
#include "../../kernels/ptx.cuh"

// y = x with the blocks of 128 floats reversed, copied 16 bytes at a time in two groups; zero from `size` on.
extern "C" __global__ void __launch_bounds__(32) reverse_by_16(IN float4* __restrict__ x, OUT float4* __restrict__ y, int size) {
    __shared__ float4 stage[2][32];
    const int first = blockIdx.x * 64 + threadIdx.x;
    cp_async_16(&stage[0][threadIdx.x], x + first);
    cp_async_commit();
    cp_async_16_zfill(&stage[1][threadIdx.x], x + first + 32, first + 32 < size);
    cp_async_commit();
    cp_async_wait<1>();
    __syncthreads();
    y[first] = stage[0][31 - threadIdx.x];
    cp_async_wait<0>();
    __syncthreads();
    y[first + 32] = stage[1][31 - threadIdx.x];
}

// The same for single floats in blocks of 32.
extern "C" __global__ void __launch_bounds__(32) reverse_by_4(IN float* __restrict__ x, OUT float* __restrict__ y, int size) {
    __shared__ float stage[2][32];
    const int first = blockIdx.x * 64 + threadIdx.x;
    cp_async_4(&stage[0][threadIdx.x], x + first);
    cp_async_4_zfill(&stage[1][threadIdx.x], x + first + 32, first + 32 < size);
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    y[first] = stage[0][31 - threadIdx.x];
    y[first + 32] = stage[1][31 - threadIdx.x];
}
