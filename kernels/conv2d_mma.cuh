// Convolution and its two gradients, linear layers and matrix products as implicit GEMM on tensor cores (conv2d_mma_tile.cuh):
//
//            rows M          columns N      sum over K        operand A                     operand B
//   fprop    n, p, q         k              r, s, c           x, gathered                   w as (K, R S C)
//   dgrad    n, h, w         c              r, s, k           dy, gathered                  w, read along its channels
//   wgrad    k               r, s, c        n, p, q           dy as (N P Q, K)              x, gathered
//
// Any stride, padding (also asymmetric), dilation and number of groups; groups are separate GEMMs over slices of the channels. A linear layer and
// a matrix product are 1 x 1 convolutions of one image of 1 x M pixels, and a batch of products differs from groups in nothing but where
// its members begin.
//
// Launch: gridDim.x = tiles times groups (times the phases of dgrad's stride, DgradAxis), columns first; gridDim.y = parts of K, of k_per_split
// each; MMA_BLOCK_THREADS threads, 128 unless a source says 256; dynamic shared memory: STAGES stages of the tile. With more than one part,
// `partial` holds each block's results and `counters` (gridDim.y + TREE_LEVELS for each x) find the blocks that add them up in order
// (reduce_splits). What a thread owns: MI x NI x 4 results.
//
// Wide instances read 16 bytes at a time: they need C / groups and K / groups divisible by 8 (tf32: 4) and arrays that start at multiples of 16
// bytes. Narrow ones read single elements, so that K = R S C has no gaps also where C is 1, 3 or 5; "few" is a wide dy and a narrow x or w.
// Within an image int is enough for coordinates (the host checks); offsets into tensors are long long.

#pragma once

#include "conv2d_mma_epilogue.cuh"
#include "conv2d_mma_sources.cuh"

// The stages of this block's part of a sum of `terms` terms that begins at k_begin.
template <class G>
__device__ __forceinline__ int stages_of(const MmaProblem& g, int k_begin, int terms) {
    return ceil_div(max(0, min(terms - k_begin, g.k_per_split)), G::BK);
}

// Which results a block computes. It lies in shared memory: only the epilogue needs it again, and the main loop has no registers to spare for it.
struct MmaBlock {
    int first_row, rows, first_column, outer;
};

template <class G>
__device__ __forceinline__ void mma_fprop(
    const typename G::T* x, const typename G::T* w, const float* bias, typename G::T* y, float4* partial, unsigned* counters,
    const MmaProblem& g) {
    using T = typename G::T;
    if constexpr (!G::SUPPORTED) {
        __trap();
    } else {
        __shared__ MmaBlock block;
        const int rows = g.pixels, terms = g.window, k_begin = blockIdx.y * g.k_per_split;
        const MmaPlace tile(blockIdx.x, ceil_div(rows, G::BM), ceil_div(g.filters, G::BN));
        if (threadIdx.x == 0) block = {tile.m * G::BM, rows, tile.n * G::BN, tile.outer};
        WindowSource<T, G::BM, G::WIDE_A, Windows> a(
            x + tile.outer * g.x_outer, {g.H, g.W, g.C, g.R, g.S, g.depth, g.dilation_h, g.dilation_w}, tile.m * G::BM, k_begin,
            [&](int row, int& n, int& h, int& w0) {
                n = divide(row, g.pq_multiplier, g.pq_shift);
                const int rest = row - n * g.plane, p = divide(rest, g.q_multiplier, g.q_shift);
                h = p * g.stride_h - g.pad_top;
                w0 = (rest - p * g.Q) * g.stride_w - g.pad_left;
                return row < rows;
            });
        MatrixSource<T, G::BN, true, G::WIDE_B> b(w + tile.outer * g.w_outer, terms, tile.n * G::BN, g.filters, k_begin, terms);
        Results<G> results;
        results.wants_sums = false;
        mma_mainloop<G>(a, b, stages_of<G>(g, k_begin, terms), mma_shared, results);
        if (!reduce_splits<G, false>(results, partial, counters)) return;
        const Output<T> output = {
            y + block.outer * g.y_outer, bias == nullptr ? nullptr : bias + block.outer * g.filters, g.relu != 0, nullptr, block.rows,
            g.filters, g.vector != 0};
        store_results<G>(results, mma_shared, output, block.first_row, block.first_column, [&](int row) {
            return static_cast<long long>(row) * g.K;
        });
    }
}

// The input pixels that a block of dgrad computes: those at first_h + i * stride_h, first_w + j * stride_w, for i < height, j < width.
struct MmaPhase {
    int first_h, first_w, height, width;
};

template <class G>
__device__ __forceinline__ void mma_dgrad(
    const typename G::T* dy, const typename G::T* w, const typename G::T* mask, typename G::T* dx, float4* partial, unsigned* counters,
    const MmaProblem& g) {
    using T = typename G::T;
    if constexpr (!G::SUPPORTED) {
        __trap();
    } else {
        __shared__ MmaBlock block;
        __shared__ MmaPhase phase;
        __shared__ Windows windows;
        __shared__ DgradAxis vertical, horizontal;
        if (threadIdx.x == 0) {
            // The first phase has the most rows; in the others the last blocks may find nothing to do.
            const int phases_h = min(g.stride_h, g.H), phases_w = min(g.stride_w, g.W);
            const int most_rows = g.N * ceil_div(g.H, g.stride_h) * ceil_div(g.W, g.stride_w);
            const MmaPlace tile(blockIdx.x, ceil_div(most_rows, G::BM), ceil_div(g.depth, G::BN));
            const int first_h = tile.outer / phases_w % phases_h, first_w = tile.outer % phases_w;
            const int height = ceil_div(g.H - first_h, g.stride_h), width = ceil_div(g.W - first_w, g.stride_w);
            phase = {first_h, first_w, height, width};
            block = {tile.m * G::BM, g.N * height * width, tile.n * G::BN, tile.outer / (phases_h * phases_w)};
            vertical = dgrad_axis(first_h, g.R, g.stride_h, g.pad_top, g.dilation_h);
            horizontal = dgrad_axis(first_w, g.S, g.stride_w, g.pad_left, g.dilation_w);
            windows = {g.P, g.Q, g.K, vertical.taps, horizontal.taps, g.filters, -vertical.row_step, -horizontal.row_step};
        }
        __syncthreads();
        if (block.first_row >= block.rows) return;  // the whole block

        const int terms = vertical.taps * horizontal.taps * g.filters, k_begin = blockIdx.y * g.k_per_split;
        WindowSource<T, G::BM, G::WIDE_A, const Windows&> a(
            dy + block.outer * g.y_outer, windows, block.first_row, k_begin, [&](int row, int& n, int& p, int& q) {
                p = vertical.origin + row / phase.width % phase.height;
                q = horizontal.origin + row % phase.width;
                n = row / phase.width / phase.height;
                return row < block.rows;
            });
        TransposedFilterSource<T, G::BN, G::WIDE_B> b(
            w + block.outer * g.w_outer, g, vertical, horizontal, block.first_column, k_begin);
        Results<G> results;
        results.wants_sums = false;
        mma_mainloop<G>(a, b, stages_of<G>(g, k_begin, terms), mma_shared, results);
        if (!reduce_splits<G, false>(results, partial, counters)) return;
        const long long begin = block.outer * g.x_outer;
        const Output<T> output = {
            dx + begin, nullptr, false, mask == nullptr ? nullptr : mask + begin, block.rows, g.depth, g.vector != 0};
        store_results<G>(results, mma_shared, output, block.first_row, block.first_column, [&](int row) {
            if (g.stride_h == 1 && g.stride_w == 1) return static_cast<long long>(row) * g.C;
            const int j = row % phase.width, i = row / phase.width % phase.height, n = row / phase.width / phase.height;
            return (static_cast<long long>(n * g.H + phase.first_h + i * g.stride_h) * g.W + phase.first_w + j * g.stride_w) * g.C;
        });
    }
}

// dw in float32, or in the inputs' dtype for a product of matrices; db may be null.
template <class G, class Out>
__device__ __forceinline__ void mma_wgrad(
    const typename G::T* x, const typename G::T* dy, Out* dw, float* db, float4* partial, unsigned* counters, const MmaProblem& g) {
    using T = typename G::T;
    if constexpr (!G::SUPPORTED) {
        __trap();
    } else {
        __shared__ MmaBlock block;
        const int columns = g.window, terms = g.pixels, k_begin = blockIdx.y * g.k_per_split;
        const MmaPlace tile(blockIdx.x, ceil_div(g.filters, G::BM), ceil_div(columns, G::BN));
        if (threadIdx.x == 0) block = {tile.m * G::BM, g.filters, tile.n * G::BN, tile.outer};
        MatrixSource<T, G::BM, false, G::WIDE_A> a(dy + tile.outer * g.y_outer, g.K, tile.m * G::BM, g.filters, k_begin, terms);
        PixelSource<T, G::BN, G::WIDE_B> b(x + tile.outer * g.x_outer, g, tile.n * G::BN, k_begin);
        Results<G> results;
        results.wants_sums = db != nullptr && tile.n == 0 && warp_column<G>() == 0;
        mma_mainloop<G>(a, b, stages_of<G>(g, k_begin, terms), mma_shared, results);
        if (!reduce_splits<G, true>(results, partial, counters)) return;
        if (results.wants_sums && lane_index() % 4 == 0) {  // all columns of the product with ones are the same
#pragma unroll
            for (int i = 0; i < G::MI * 2; ++i) {
                const int row = block.first_row + warp_row<G>() + i * 8 + lane_index() / 4;
                if (row < g.filters) db[block.outer * g.filters + row] = results.sums[i / 2][i % 2 * 2];
            }
        }
        const Output<Out> output = {dw + block.outer * g.w_outer, nullptr, false, nullptr, g.filters, columns, g.vector != 0};
        store_results<G>(results, mma_shared, output, block.first_row, block.first_column, [&](int row) {
            return static_cast<long long>(row) * columns;
        });
    }
}

// The arrays of kernels that take vectors, which asks the host for alignment, as the elements that they are.
__device__ __forceinline__ const float16* elements(const float16x8* array) { return reinterpret_cast<const float16*>(array); }
__device__ __forceinline__ const bfloat16* elements(const bfloat16x8* array) { return reinterpret_cast<const bfloat16*>(array); }
__device__ __forceinline__ const float* elements(const float4* array) { return reinterpret_cast<const float*>(array); }
