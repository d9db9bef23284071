// Every conversion of kernels/half.cuh, and vectors of halves.

#include "../../kernels/common.cuh"
#include "../../kernels/half.cuh"

extern "C" __global__ void __launch_bounds__(256) widen_float16(IN float16* __restrict__ x, OUT float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = to_float(x[i]);
}

extern "C" __global__ void __launch_bounds__(256) widen_bfloat16(IN bfloat16* __restrict__ x, OUT float* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = to_float(x[i]);
}

extern "C" __global__ void __launch_bounds__(256) narrow_float16(IN float* __restrict__ x, OUT float16* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = from_float<float16>(to_float(x[i]));
}

extern "C" __global__ void __launch_bounds__(256) narrow_bfloat16(IN float* __restrict__ x, OUT bfloat16* __restrict__ y, long long size) {
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = from_float<bfloat16>(x[i]);
}

// y = x reversed, a whole vector at a time.
template <typename T, int N>
__device__ __forceinline__ void reverse(const typename HalfVector<T, N>::type* x, typename HalfVector<T, N>::type* y, int vectors) {
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
        const typename HalfVector<T, N>::type from = x[i];
        typename HalfVector<T, N>::type to;
        for (int j = 0; j < N; ++j) to.v[j] = from.v[N - 1 - j];
        y[vectors - 1 - i] = to;
    }
}

extern "C" __global__ void __launch_bounds__(32) reverse_float16x8(IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, int vectors) {
    reverse<float16, 8>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(32) reverse_bfloat16x8(IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, int vectors) {
    reverse<bfloat16, 8>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(32) reverse_float16x2(IN float16x2* __restrict__ x, OUT float16x2* __restrict__ y, int vectors) {
    reverse<float16, 2>(x, y, vectors);
}

extern "C" __global__ void __launch_bounds__(32) reverse_bfloat16x2(IN bfloat16x2* __restrict__ x, OUT bfloat16x2* __restrict__ y, int vectors) {
    reverse<bfloat16, 2>(x, y, vectors);
}
