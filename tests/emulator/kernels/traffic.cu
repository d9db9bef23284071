// Kernels whose bytes can be told by hand.

#include "../../../kernels/common.cuh"
#include "../../../kernels/half.cuh"
#include "../../../kernels/ptx.cuh"

extern "C" __global__ void __launch_bounds__(128) copy(IN float* __restrict__ x, OUT float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = x[i];
}

extern "C" __global__ void __launch_bounds__(128) copy_vec4(IN float4* __restrict__ x, OUT float4* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = x[i];
}

extern "C" __global__ void __launch_bounds__(128) widen(IN float16x8* __restrict__ x, OUT float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) {
        const float16x8 v = x[i];
        for (int j = 0; j < 8; ++j) y[i * 8 + j] = to_float(v.v[j]);
    }
}

// y[i] = the sum of x[i] and its `width - 1` successors: bytes are read again and again.
extern "C" __global__ void __launch_bounds__(128) window_sums(IN float* __restrict__ x, OUT float* __restrict__ y, int size, int width) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) {
        float sum = 0.0f;
        for (int j = 0; j < width; ++j) sum += __ldg(x + i + j);
        y[i] = sum;
    }
}

// Every `step`-th byte, and shared memory in between.
extern "C" __global__ void __launch_bounds__(64) every(IN unsigned char* __restrict__ x, INOUT unsigned char* __restrict__ y, int size, int step) {
    __shared__ unsigned char stage[64];
    for (int first = 0; first < size; first += 64 * step) {
        const int i = first + threadIdx.x * step;
        stage[threadIdx.x] = i < size ? x[i] : 0;
        __syncthreads();
        if (i < size) y[i] = stage[threadIdx.x];
        __syncthreads();
    }
}

// 16 bytes a thread through shared memory; the copies beyond `valid` read nothing.
extern "C" __global__ void __launch_bounds__(64) through_shared(IN float4* __restrict__ x, OUT float4* __restrict__ y, int valid) {
    __shared__ float4 stage[64];
    const int i = blockIdx.x * 64 + threadIdx.x;
    cp_async_16_zfill(&stage[threadIdx.x], x + i, i < valid);
    cp_async_commit();
    cp_async_wait<0>();
    y[i] = stage[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(64) count_labels(IN long long* __restrict__ labels, INOUT unsigned* __restrict__ counts, int size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) atomicAdd(counts + labels[i], 1u);
}

// parameters[b][...] -= gradients[b][...] by block b.
extern "C" __global__ void __launch_bounds__(64) step(INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients, IN int* __restrict__ sizes) {
    float* p = parameters[blockIdx.x];
    const float* g = gradients[blockIdx.x];
    for (int i = threadIdx.x; i < sizes[blockIdx.x]; i += 64) p[i] -= g[i];
}

extern "C" __global__ void __launch_bounds__(64) add(IN float* x, IN float* y, IN float* nothing, OUT float* z, int size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) z[i] = x[i] + y[i] + (nothing ? nothing[i] : 0.0f);
}
