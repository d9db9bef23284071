// Local response normalisation across channels, over rows (pixels) of channels-last memory: x (rows, C).
//
//     scale[c] = k + alpha / size * sum of x[j]^2 over j in [c - before, c + after]
//     y[c]     = x[c] * scale[c]^-beta
//     dx[c]    = dy[c] * scale[c]^-beta - 2 alpha beta / size * x[c] * sum of t[j] over j in [c - after, c + before]
//     t[j]     = dy[j] * x[j] * scale[j]^(-beta - 1)
//
// with before = size / 2 and after = (size - 1) / 2 (PyTorch's window), clipped to the row; Krizhevsky, Sutskever,
// Hinton, "ImageNet classification with deep convolutional neural networks", 2012. With `mask`, dx = 0 where not x > 0: the
// backward of a ReLU that gave x.
//
// Bound by memory: forward reads x and writes y, backward reads dy and x and writes dx; scale is computed anew, which costs less than
// to write and read it. There are two forms.
//
// lrn_*_<window>  Windows of 2 SIDE + 1 channels (9 or 5) and beta = 3/4: the usual constants. Block (C / V, rows), at most 256 threads, any
//     grid: a thread owns V = 4 (float4) or 8 (half types) neighbouring channels of a row, threadIdx.y and blockIdx.x walk the rows.
//     What a window needs from beside its thread's channels are the four next ones on either side: they come through shared memory, in
//     planes of float4 (of a thread's first four channels, and of its last four), so that neither is a bank met twice. Forward has
//     one barrier a row, backward two; they are of a warp alone where C / V divides 32. Arrays are 16-byte aligned.
// lrn_*           Any window and beta. Blocks of 256, any grid; forward, a thread owns one element and reads its window through the caches;
//     backward, a block owns groups of `group` whole rows and lays their dy scale^-beta and t in shared memory first (2 group C floats), so
//     that each power is computed once; group = 0: rows too long for that, and t is computed again wherever it is needed. No alignment.
//
// The order of a window's sum follows from the instance alone.

#pragma once

#include "lanes.cuh"
#include "ptx.cuh"

constexpr int THREADS = 256, NEXT = 4;  // NEXT: channels that a window may need on either side of its thread's own

// ---- windows of 9 or 5, beta = 3/4 -------------------------------------------------------------------------------------------------

// What threads lay down for their neighbours in the row.
template <int V>
struct Planes {
    float4 first[THREADS], last[V == 4 ? 1 : THREADS];  // of four channels, the first are the last
};

__device__ __forceinline__ void barrier(bool warp_rows) {
    if (warp_rows) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}

// window = four channels from the left neighbour, the thread's own, four from the right; 0 beyond the row's ends. A barrier stands within.
template <int V>
__device__ __forceinline__ void exchange(
    Planes<V>& planes, const float (&own)[V], bool warp_rows, float (&window)[V + 2 * NEXT]) {
    const int place = threadIdx.y * blockDim.x + threadIdx.x;
    float4(&last)[V == 4 ? 1 : THREADS] = planes.last;
    planes.first[place] = make_float4(own[0], own[1], own[2], own[3]);
    if constexpr (V == 8) last[place] = make_float4(own[4], own[5], own[6], own[7]);
    barrier(warp_rows);
    float4 left = make_float4(0.0f, 0.0f, 0.0f, 0.0f), right = left;
    if constexpr (V == 8) {
        if (threadIdx.x > 0) left = last[place - 1];
    } else {
        if (threadIdx.x > 0) left = planes.first[place - 1];
    }
    if (threadIdx.x + 1 < blockDim.x) right = planes.first[place + 1];
    window[0] = left.x, window[1] = left.y, window[2] = left.z, window[3] = left.w;
#pragma unroll
    for (int i = 0; i < V; ++i) window[NEXT + i] = own[i];
    window[NEXT + V] = right.x, window[NEXT + V + 1] = right.y, window[NEXT + V + 2] = right.z, window[NEXT + V + 3] = right.w;
}

// sums[i] = the sum of the 2 SIDE + 1 values about channel i. Where all V windows share a middle, it is added up once, and what is left and
// right of it grows value by value.
template <int SIDE, int V>
__device__ __forceinline__ void window_sums(const float (&window)[V + 2 * NEXT], float (&sums)[V]) {
    constexpr int SIZE = 2 * SIDE + 1, FROM = NEXT - SIDE;
    if constexpr (SIZE < V) {
#pragma unroll
        for (int i = 0; i < V; ++i) {
            sums[i] = window[FROM + i];
#pragma unroll
            for (int j = 1; j < SIZE; ++j) sums[i] += window[FROM + i + j];
        }
    } else {
        float middle = window[FROM + V - 1];
#pragma unroll
        for (int j = V; j < SIZE; ++j) middle += window[FROM + j];
        float before[V], after[V];  // sums of the i values before the middle, and of the i values after it
        before[0] = after[0] = 0.0f;
#pragma unroll
        for (int i = 1; i < V; ++i) {
            before[i] = i == 1 ? window[FROM + V - 2] : before[i - 1] + window[FROM + V - 1 - i];
            after[i] = i == 1 ? window[FROM + SIZE] : after[i - 1] + window[FROM + SIZE + i - 1];
        }
#pragma unroll
        for (int i = 0; i < V; ++i) {
            sums[i] = i == V - 1 ? middle + after[i] : i == 0 ? before[V - 1] + middle : (before[V - 1 - i] + middle) + after[i];
        }
    }
}

// scale^-3/4. The hardware's roots give it to 3.2 units of 2^-23, and with the rounding of the window's sum and of the product with x that
// could miss the four that the result may be off. So it is corrected once by Newton's step on power^4 scale^3 = 1, which leaves 1.2.
__device__ __forceinline__ float power_of(float scale) {
    const float root = rsqrt_approx(scale);
    const float power = root * sqrt_approx(root);
    const float square = power * scale * power;                             // scale^-1/2
    const float error = fmaxf(fmaf(-square * square, scale, 1.0f), -1.0f);  // an infinite scale gives NaN here, then -1: its power is 0
    return fmaf(0.25f * power, error, power);
}

template <typename M>
__device__ __forceinline__ Lanes<M> lanes_or_zero(IN M* __restrict__ from, bool there) {
    if (there) return Lanes<M>::load(from);
    Lanes<M> zeros = {};
    return zeros;
}

template <typename M, int SIDE>
__device__ __forceinline__ void window_forward(
    IN M* __restrict__ x, M* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ Planes<V> planes[2];  // in turn: a thread may be a row ahead of its neighbour
    int turn = 0;
    for (long long first = static_cast<long long>(blockIdx.x) * blockDim.y; first < rows;
         first += static_cast<long long>(gridDim.x) * blockDim.y, turn ^= 1) {
        const long long row = first + threadIdx.y, i = row * blockDim.x + threadIdx.x;
        Lanes<M> value = lanes_or_zero(x + i, row < rows);
        float squares[V], window[V + 2 * NEXT], sums[V];
#pragma unroll
        for (int c = 0; c < V; ++c) squares[c] = value.at[c] * value.at[c];
        exchange<V>(planes[turn], squares, warp_rows, window);
        window_sums<SIDE>(window, sums);
#pragma unroll
        for (int c = 0; c < V; ++c) value.at[c] *= power_of(fmaf(alpha_over_size, sums[c], k));
        if (row < rows) value.store(y + i);
    }
}

// dx of a row in place of its dy: `gradient`; factor = 2 alpha beta / size. Two barriers stand within.
template <int SIDE, int V>
__device__ __forceinline__ void window_gradient(
    Planes<V>& of_squares, Planes<V>& of_terms, const float (&value)[V], float (&gradient)[V], float alpha_over_size, float k, float factor,
    int mask, int warp_rows) {
    float terms[V], window[V + 2 * NEXT], sums[V];
#pragma unroll
    for (int c = 0; c < V; ++c) terms[c] = value[c] * value[c];
    exchange<V>(of_squares, terms, warp_rows, window);
    window_sums<SIDE>(window, sums);
#pragma unroll
    for (int c = 0; c < V; ++c) {
        const float scale = fmaf(alpha_over_size, sums[c], k);
        gradient[c] *= power_of(scale);
        terms[c] = gradient[c] * value[c] * reciprocal_approx(scale);
    }
    exchange<V>(of_terms, terms, warp_rows, window);
    window_sums<SIDE>(window, sums);
#pragma unroll
    for (int c = 0; c < V; ++c) {
        gradient[c] = fmaf(-factor * value[c], sums[c], gradient[c]);
        if (mask && !(value[c] > 0.0f)) gradient[c] = 0.0f;
    }
}

template <typename M, int SIDE>
__device__ __forceinline__ void window_backward(
    IN M* __restrict__ dy, IN M* __restrict__ x, M* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ Planes<V> of_squares, of_terms;
    for (long long first = static_cast<long long>(blockIdx.x) * blockDim.y; first < rows;
         first += static_cast<long long>(gridDim.x) * blockDim.y) {
        const long long row = first + threadIdx.y, i = row * blockDim.x + threadIdx.x;
        const Lanes<M> value = lanes_or_zero(x + i, row < rows);
        Lanes<M> gradient = lanes_or_zero(dy + i, row < rows);
        window_gradient<SIDE>(of_squares, of_terms, value.at, gradient.at, alpha_over_size, k, factor, mask, warp_rows);
        if (row < rows) gradient.store(dx + i);
    }
}

// ---- any window, any beta ------------------------------------------------------------------------------------------------------------

// What a window is and what is made of it.
struct LrnWindow {
    int C, before, after;
    float alpha_over_size, beta, k;
};

__device__ __forceinline__ float inverse_power(float scale, float beta) {
    if (beta == 0.75f) {
        const float root = 1.0f / sqrtf(scale);
        return root * sqrtf(root);
    }
    return powf(scale, -beta);
}

// scale of channel c of a row.
template <typename T>
__device__ __forceinline__ float scale_at(IN T* __restrict__ row, int c, const LrnWindow& w) {
    const int last = w.after < w.C - 1 - c ? c + w.after : w.C - 1;
    float sum = 0.0f;
    for (int j = c > w.before ? c - w.before : 0; j <= last; ++j) sum = fmaf(to_float(row[j]), to_float(row[j]), sum);
    return fmaf(w.alpha_over_size, sum, w.k);
}

template <typename T>
__device__ __forceinline__ void general_forward(IN T* __restrict__ x, T* __restrict__ y, long long rows, const LrnWindow& w) {
    const long long size = rows * w.C;
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) {
        // A 64-bit division would cost as much as the window.
        const int c = static_cast<int>(i < (1LL << 31) ? static_cast<unsigned>(i) % w.C : i % w.C);
        y[i] = from_float<T>(to_float(x[i]) * inverse_power(scale_at(x + (i - c), c, w), w.beta));
    }
}

// dy scale^-beta and t of channel c of a row.
struct LrnTerms {
    float direct, shared;
};

template <typename T>
__device__ __forceinline__ LrnTerms terms_at(IN T* __restrict__ dy, IN T* __restrict__ x, int c, const LrnWindow& w) {
    const float scale = scale_at(x, c, w), power = inverse_power(scale, w.beta);
    return {to_float(dy[c]) * power, to_float(dy[c]) * to_float(x[c]) * (power / scale)};
}

template <typename T>
__device__ __forceinline__ void general_backward(
    IN T* __restrict__ dy, IN T* __restrict__ x, T* __restrict__ dx, long long rows, const LrnWindow& w, float factor,
    int mask, int group) {
    extern __shared__ float terms[];  // t, then dy scale^-beta, of a group
    const long long group_size = static_cast<long long>(group > 0 ? group : 1) * w.C;
    const long long size = rows * w.C;
    for (long long begin = blockIdx.x * group_size; begin < size; begin += gridDim.x * group_size) {
        const int count = static_cast<int>(min(group_size, size - begin));
        if (group > 0) {
            for (int i = threadIdx.x; i < count; i += blockDim.x) {
                const int c = i % w.C;
                const LrnTerms at = terms_at(dy + begin + (i - c), x + begin + (i - c), c, w);
                terms[i] = at.shared;
                terms[group * w.C + i] = at.direct;
            }
            __syncthreads();
        }
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            const int c = i % w.C, row = i - c, last = w.before < w.C - 1 - c ? c + w.before : w.C - 1;
            IN T *row_dy = dy + begin + row, *row_x = x + begin + row;
            float sum = 0.0f;
            for (int j = c > w.after ? c - w.after : 0; j <= last; ++j) {
                sum += group > 0 ? terms[row + j] : terms_at(row_dy, row_x, j, w).shared;
            }
            const float direct = group > 0 ? terms[group * w.C + i] : terms_at(row_dy, row_x, c, w).direct;
            const float value = to_float(row_x[c]);
            dx[begin + i] = from_float<T>(mask && !(value > 0.0f) ? 0.0f : direct - factor * value * sum);
        }
        if (group > 0) __syncthreads();  // nobody still reads terms when the next group's are written
    }
}
