// The backward passes of local response normalisation and of max pooling where one follows the other, without the gradient between them in
// memory. Windows of 2 SIDE + 1 channels and beta = 3/4 (lrn.cuh), pooling of 3 x 3 with stride 2 and dilation 1 (pool2d.cuh), channels-last
// images. The same numbers as the two kernels one after the other: what stands between is rounded as it would be in memory.
//
// lrn_backward_pool_*   y = lrn(x), then pooled: x and y (N, H, W, C), dy (N, P, Q, C), or (N, C, P, Q) with `planes`: what comes back from
//     a linear layer that took the images flattened. Blocks as in lrn.cuh. A thread owns 16 bytes of channels of a pixel, and asks the
//     indices of the (at most four) windows that hold the pixel which of their dy is its own; only those are read, each by one thread,
//     so that even from planes a read costs a sector an element and no more. Reads dy, its byte and x, writes dx.
// max_pool2d_backward_lrn_*   x pooled, then normalised: y = lrn(pooled), dy, pooled (N, P, Q, C), dx (N, H, W, C). Block (C / V, pixels), at
//     most 256 threads, 2 pixels at least where a row of tiles takes several blocks. A block makes `strip` rows of tiles of 2 x 2 inputs: it
//     walks down the rows of pooled pixels, a thread owning a column, and keeps the normalisation's gradient of the row above in registers;
//     that of the column to the left comes through shared memory. The row above a strip, and the column left of a block's, are
//     computed a second time. The next row's loads are under way while a row is computed. Reads dy, pooled and a byte of each, writes dx.

#pragma once

#include "geometry.cuh"
#include "lrn.cuh"

constexpr int POOL_SIZE = 3, POOL_STRIDE = 2, NO_WINNER = 255;

// As the lanes would come back from memory.
template <typename M>
__device__ __forceinline__ void round_lanes(Lanes<M>& lanes) {
#pragma unroll
    for (int v = 0; v < Lanes<M>::COUNT; ++v) lanes.at[v] = to_float(from_float<typename Memory<M>::Scalar>(lanes.at[v]));
}

// The gradient of pixel (h, w) of image n, channels V * column on, from those of the windows that hold it, in order of p and q.
template <typename M>
__device__ __forceinline__ Lanes<M> gathered(
    IN typename Memory<M>::Scalar* __restrict__ dy, IN BytesOf<M>* __restrict__ index, const Pool2dGeometry& g, long long n, int h, int w,
    int column, int planes) {
    constexpr int V = Lanes<M>::COUNT;
    const int vectors = g.C / V, down = h + g.pad_top, across = w + g.pad_left;
    const long long step = planes ? static_cast<long long>(g.P) * g.Q : 1;
    Lanes<M> sum = {};
#pragma unroll
    for (int d = 1; d >= 0; --d) {
#pragma unroll
        for (int e = 1; e >= 0; --e) {
            const int p = down / POOL_STRIDE - d, q = across / POOL_STRIDE - e;
            const int r = down % POOL_STRIDE + d * POOL_STRIDE, s = across % POOL_STRIDE + e * POOL_STRIDE;
            if (r >= POOL_SIZE || s >= POOL_SIZE || p < 0 || p >= g.P || q < 0 || q >= g.Q) continue;
            const long long pixel = static_cast<long long>(p) * g.Q + q, window = n * g.P * g.Q + pixel;
            const long long first = planes ? (n * g.C + column * V) * step + pixel : window * g.C + column * V;
            int winner[V];
            unpack_index(winner, index[window * vectors + column]);
#pragma unroll
            for (int v = 0; v < V; ++v) {
                if (winner[v] == r * POOL_SIZE + s) sum.at[v] += to_float(dy[first + v * step]);
            }
        }
    }
    return sum;
}

template <typename M, int SIDE>
__device__ __forceinline__ void window_backward_pool(
    IN typename Memory<M>::Scalar* __restrict__ dy, IN BytesOf<M>* __restrict__ index, IN M* __restrict__ x, M* __restrict__ dx,
    const Pool2dGeometry& g, int planes, float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ Planes<V> of_squares, of_terms;
    const int rows = g.N * g.H * g.W;
    for (int first = blockIdx.x * blockDim.y; first < rows; first += gridDim.x * blockDim.y) {
        const int row = first + threadIdx.y;
        const long long i = static_cast<long long>(row) * blockDim.x + threadIdx.x;
        const Lanes<M> value = lanes_or_zero(x + i, row < rows);
        Lanes<M> gradient = {};
        if (row < rows) {
            const int line = row / g.W;
            gradient = gathered<M>(dy, index, g, line / g.H, line % g.H, row % g.W, threadIdx.x, planes);
            round_lanes(gradient);
        }
        window_gradient<SIDE>(of_squares, of_terms, value.at, gradient.at, alpha_over_size, k, factor, mask, warp_rows);
        if (row < rows) gradient.store(dx + i);
    }
}

// A pooled pixel: the gradient that it sends on, as in memory, and to which of its window's taps.
template <typename M>
struct Sent {
    M gradient;
    BytesOf<M> winner;
};

template <typename M>
__device__ __forceinline__ Sent<M> nothing_sent() {
    constexpr int V = Lanes<M>::COUNT;
    Sent<M> sent = {};
    int none[V];
#pragma unroll
    for (int v = 0; v < V; ++v) none[v] = NO_WINNER;
    sent.winner = pack_index<BytesOf<M>>(none);
    return sent;
}

// Adds what `sent` holds for tap `tap` of its window.
template <typename M>
__device__ __forceinline__ void receive(Lanes<M>& sum, const Sent<M>& sent, int tap) {
    constexpr int V = Lanes<M>::COUNT;
    const Lanes<M> gradient = Lanes<M>::of(sent.gradient);
    int winner[V];
    unpack_index(winner, sent.winner);
#pragma unroll
    for (int v = 0; v < V; ++v) sum.at[v] += winner[v] == tap ? gradient.at[v] : 0.0f;
}

template <typename M, int SIDE>
__device__ __forceinline__ void pool_backward_window(
    IN M* __restrict__ dy, IN M* __restrict__ pooled, IN BytesOf<M>* __restrict__ index, M* __restrict__ dx, const Pool2dGeometry& g,
    int strip, float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    constexpr int V = Lanes<M>::COUNT;
    __shared__ Planes<V> of_squares, of_terms;
    __shared__ M gradients[2][THREADS];  // by turns: a warp may be a row ahead of its neighbour
    __shared__ BytesOf<M> winners[2][THREADS];
    const int tile_rows = ceil_div(g.H + g.pad_top, POOL_STRIDE), tile_columns = ceil_div(g.W + g.pad_left, POOL_STRIDE);
    const int pixels = blockDim.y, overlap = tile_columns > pixels ? 1 : 0;
    const int chunks = ceil_div(tile_columns, pixels - overlap), strips = ceil_div(tile_rows, strip);
    const int place = threadIdx.y * blockDim.x + threadIdx.x;
    const long long line = static_cast<long long>(g.Q) * blockDim.x, items = static_cast<long long>(g.N) * strips * chunks;
    int turn = 0;
    for (long long item = blockIdx.x; item < items; item += gridDim.x) {
        const long long n = item / (strips * chunks);
        const int rest = static_cast<int>(item % (strips * chunks));
        const int begin = rest / chunks * strip, end = min(begin + strip, tile_rows), start = max(begin - 1, 0);
        const int column = rest % chunks * (pixels - overlap) - overlap + threadIdx.y;  // of tiles, and of pooled pixels
        const bool makes = threadIdx.y >= overlap && column < tile_columns, among = column >= 0 && column < g.Q;
        const long long image = (n * g.P * g.Q + column) * blockDim.x + threadIdx.x;
        Sent<M> above = nothing_sent<M>(), above_left = above, next = above;
        M next_value = {};
        if (among && start < g.P) {
            next = {dy[image + start * line], index[image + start * line]};
            next_value = pooled[image + start * line];
        }
        for (int i = start; i < end; ++i, turn ^= 1) {
            Sent<M> own = next, left = nothing_sent<M>();
            const Lanes<M> value = Lanes<M>::of(next_value);
            next = left;
            next_value = {};
            if (among && i + 1 < end && i + 1 < g.P) {
                next = {dy[image + (i + 1) * line], index[image + (i + 1) * line]};
                next_value = pooled[image + (i + 1) * line];
            }
            Lanes<M> gradient = Lanes<M>::of(own.gradient);
            window_gradient<SIDE>(of_squares, of_terms, value.at, gradient.at, alpha_over_size, k, factor, mask, warp_rows);
            gradient.store(&own.gradient);
            gradients[turn][place] = own.gradient;
            winners[turn][place] = own.winner;
            __syncthreads();
            if (threadIdx.y > 0) left = {gradients[turn][place - blockDim.x], winners[turn][place - blockDim.x]};
            if (makes && i >= begin) {
#pragma unroll
                for (int a = 0; a < POOL_STRIDE; ++a) {
                    const int h = i * POOL_STRIDE - g.pad_top + a;
#pragma unroll
                    for (int b = 0; b < POOL_STRIDE; ++b) {
                        const int w = column * POOL_STRIDE - g.pad_left + b;
                        Lanes<M> sum = {};
                        if (a == 0 && b == 0) receive(sum, above_left, 2 * POOL_SIZE + 2);
                        if (a == 0) receive(sum, above, 2 * POOL_SIZE + b);
                        if (b == 0) receive(sum, left, a * POOL_SIZE + 2);
                        receive(sum, own, a * POOL_SIZE + b);
                        if (h >= 0 && h < g.H && w >= 0 && w < g.W) {
                            sum.store(dx + ((n * g.H + h) * g.W + w) * blockDim.x + threadIdx.x);
                        }
                    }
                }
            }
            above = own;
            above_left = left;
        }
    }
}
