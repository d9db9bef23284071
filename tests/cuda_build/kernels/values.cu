// Kernels that show that arguments of every kind arrive: a struct by value, a table of arrays, each scalar type, a null pointer.
#include "common.cuh"

struct Mixed {
    int a, b;
    float c;
    long long d;
};

extern "C" __global__ void __launch_bounds__(32) read_struct(Mixed m, OUT long long* out) {
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        out[0] = m.a;
        out[1] = m.b;
        out[2] = static_cast<long long>(m.c * 4.0f);
        out[3] = m.d;
    }
}

extern "C" __global__ void __launch_bounds__(32) read_scalars(
    int i, unsigned u, unsigned char c, long long l, unsigned long long ul, float f, IN float* maybe, OUT long long* out) {
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        out[0] = i;
        out[1] = u;
        out[2] = c;
        out[3] = l;
        out[4] = static_cast<long long>(ul);
        out[5] = static_cast<long long>(f * 4.0f);
        out[6] = maybe == nullptr ? -1 : static_cast<long long>(maybe[0]);
    }
}

// Block k adds `value` to the first `sizes[k]` elements of array k.
extern "C" __global__ void __launch_bounds__(64) add_to_each(INOUT float* const* __restrict__ arrays, IN int* __restrict__ sizes, float value) {
    float* const array = arrays[blockIdx.x];
    for (int i = threadIdx.x; i < sizes[blockIdx.x]; i += blockDim.x) {
        array[i] += value;
    }
}

// Reverses each block's part through dynamic shared memory, whose size the launch says.
extern "C" __global__ void __launch_bounds__(1024) reverse_blocks(IN float* __restrict__ x, OUT float* __restrict__ y, int count) {
    extern __shared__ float part[];
    const float* const from = x + static_cast<long long>(blockIdx.x) * count;
    float* const to = y + static_cast<long long>(blockIdx.x) * count;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        part[i] = from[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        to[i] = part[count - 1 - i];
    }
}
