// Sums, products with a number, and copies in another order, over the storage types of half.cuh; kernels are declared in elementwise.cu
// (float) and elementwise_half.cu (float16, bfloat16). All are bound by memory.
//
// A `Vector` is what a thread moves with one instruction: one element, which asks for no alignment, or a float4 or eight halves (*_vec), which
// ask for arrays that start at multiples of 16 bytes and hold whole Vectors. Lanes (lanes.cuh) would do for Parts, but the compiler makes
// other code of it.

#pragma once

#include "common.cuh"
#include "half.cuh"

// Work on the parts of a vector as floats: `get(v, i)` reads, `set(v, i, x)` rounds and writes.
template <typename Vector>
struct Parts;

template <>
struct Parts<float> {
    static constexpr int COUNT = 1;
    static __device__ __forceinline__ float get(const float& v, int) { return v; }
    static __device__ __forceinline__ void set(float& v, int, float x) { v = x; }
};

template <>
struct Parts<float4> {
    static constexpr int COUNT = 4;
    static __device__ __forceinline__ float get(const float4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }
    static __device__ __forceinline__ void set(float4& v, int i, float x) { (i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w) = x; }
};

template <typename Half>
struct HalfParts {
    static constexpr int COUNT = 1;
    static __device__ __forceinline__ float get(const Half& v, int) { return to_float(v); }
    static __device__ __forceinline__ void set(Half& v, int, float x) { v = from_float<Half>(x); }
};

template <typename Half, typename Vector>
struct EightParts {
    static constexpr int COUNT = 8;
    static __device__ __forceinline__ float get(const Vector& v, int i) { return to_float(v.v[i]); }
    static __device__ __forceinline__ void set(Vector& v, int i, float x) { v.v[i] = from_float<Half>(x); }
};

template <> struct Parts<float16> : HalfParts<float16> {};
template <> struct Parts<bfloat16> : HalfParts<bfloat16> {};
template <> struct Parts<float16x8> : EightParts<float16, float16x8> {};
template <> struct Parts<bfloat16x8> : EightParts<bfloat16, bfloat16x8> {};

// z = x + y, with `relu` max(z, 0), NaN kept. Launch: blocks of 256, any grid; a thread owns every grid-th Vector.
template <typename Vector>
__device__ __forceinline__ void add_vectors(
    IN Vector* __restrict__ x, IN Vector* __restrict__ y, OUT Vector* __restrict__ z, long long vectors, int relu) {
    using P = Parts<Vector>;
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const Vector a = x[i], b = y[i];
        Vector sum;
#pragma unroll
        for (int part = 0; part < P::COUNT; ++part) {
            const float value = P::get(a, part) + P::get(b, part);
            P::set(sum, part, relu && value <= 0.0f ? 0.0f : value);
        }
        z[i] = sum;
    }
}

// y = x * factor, and times by[0] where `by` is not null, in float and rounded once. Launch: blocks of 256, any grid; a thread
// owns every grid-th From. From and To may differ, but not in their number of parts.
template <typename From, typename To>
__device__ __forceinline__ void scale_vectors(
    IN From* __restrict__ x, OUT To* __restrict__ y, IN float* __restrict__ by, float factor, long long vectors) {
    static_assert(Parts<From>::COUNT == Parts<To>::COUNT, "as many parts on both sides");
    const float all = by == nullptr ? factor : factor * by[0];
    for (long long i = grid_stride_begin(); i < vectors; i += grid_stride_step()) {
        const From a = x[i];
        To product;
#pragma unroll
        for (int part = 0; part < Parts<From>::COUNT; ++part) Parts<To>::set(product, part, Parts<From>::get(a, part) * all);
        y[i] = product;
    }
}

// y (images, columns, rows) = x (images, rows, columns), the last two axes exchanged: channels-last memory to C order and back.
// Launch: blocks of (32, 8), a grid of images * ceil(rows / 32) * ceil(columns / 32) blocks at most 2^31 - 1; a block owns a tile of 32 x 32
// and turns it in shared memory, whose rows are one element longer so that columns lie in different banks. No alignment is asked for.
constexpr int TURN = 32;

template <typename T>
__device__ __forceinline__ void transpose_tile(IN T* __restrict__ x, OUT T* __restrict__ y, int rows, int columns, T (&tile)[TURN][TURN + 1]) {
    const int across = ceil_div(columns, TURN), down = ceil_div(rows, TURN);
    const long long image = blockIdx.x / (across * down);
    const int place = static_cast<int>(blockIdx.x % (across * down));
    const int top = place / across * TURN, left = place % across * TURN;
    const long long base = image * rows * columns;
    for (int r = threadIdx.y; r < TURN; r += blockDim.y) {
        const int row = top + r, column = left + threadIdx.x;
        if (row < rows && column < columns) tile[r][threadIdx.x] = x[base + static_cast<long long>(row) * columns + column];
    }
    __syncthreads();
    for (int r = threadIdx.y; r < TURN; r += blockDim.y) {
        const int row = left + r, column = top + threadIdx.x;
        if (row < columns && column < rows) y[base + static_cast<long long>(row) * rows + column] = tile[threadIdx.x][r];
    }
}

// y (rows, to) = x (rows, from): the first elements of each row, and zeros behind them where `to` is the larger. Launch: blocks of 256, any
// grid; a thread owns every grid-th element of y.
template <typename T>
__device__ __forceinline__ void resize_rows_of(IN T* __restrict__ x, OUT T* __restrict__ y, long long rows, int from, int to) {
    for (long long i = grid_stride_begin(); i < rows * to; i += grid_stride_step()) {
        const long long row = i / to;
        const int column = static_cast<int>(i - row * to);
        y[i] = column < from ? x[row * from + column] : T{};
    }
}
