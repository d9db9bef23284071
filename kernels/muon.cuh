// Products of many small matrices in one launch, for Muon's Newton-Schulz iterations (muon.cu), in float32 on the ordinary FMA units.
//
// A block of 256 threads computes a tile of BM x BN results of one matrix. Its 8 warps lie as WARPS_M x WARPS_N on the tile, each on 32 x 32
// results, WARPS_K of them one above the other, each with its own slice of every stage of BK along K: a tile of 32 x 32 with a K of thousands
// keeps all 8 warps busy so. At the end the slices are added in their order, so results do not depend on who was first.
//
// A lane owns 4 x 8 results. In shared memory rows run along K (pitch BK + 4 floats) and are read four values of K at a time: the 8 (4)
// different rows of a warp's A (B) reads lie in different banks. B stored as K x N (NN) is read four columns at a time instead. Two buffers:
// while a stage is multiplied, the next one is on its way into registers; one barrier a stage.

#pragma once

#include "common.cuh"

constexpr int PRODUCT_THREADS = 256;

template <int BM_, int BN_, int BK_, int WARPS_M_, int WARPS_N_, int WARPS_K_, bool B_ROWS_>
struct Product {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, WARPS_K = WARPS_K_;
    static constexpr bool B_ROWS = B_ROWS_;  // B is stored N x K, rows along K as A's are; else K x N
    static constexpr int PITCH = BK + 4, B_PITCH = B_ROWS ? PITCH : BN + 4, SUM_PITCH = BN + 4;
    static constexpr int A_SIZE = BM * PITCH, B_SIZE = B_ROWS ? BN * PITCH : BK * B_PITCH;
    static constexpr int STAGES_SIZE = 2 * (A_SIZE + B_SIZE), SUMS_SIZE = WARPS_K * BM * SUM_PITCH;
    static constexpr int SHARED = STAGES_SIZE > SUMS_SIZE ? STAGES_SIZE : SUMS_SIZE;  // floats
    static constexpr int SLICE = BK / WARPS_K;
    static_assert(32 * WARPS_M * WARPS_N * WARPS_K == PRODUCT_THREADS, "8 warps");
    static_assert(BM == 32 * WARPS_M && BN == 32 * WARPS_N, "a warp computes 32 x 32");
    static_assert(SLICE % 4 == 0, "four values of K at a time");
};

// A thread's share of a stage of rows that run along K (COLUMNS = BK), or of K rows of BN columns.
template <int ROWS, int COLUMNS>
struct Stage {
    static constexpr int STEP = PRODUCT_THREADS / COLUMNS, COUNT = ROWS / STEP;
    static_assert(COUNT * STEP == ROWS, "the threads share a stage evenly");

    float values[COUNT];

    // Elements (row, column) of a matrix of `rows` x `columns`, fewer than 2^30, from (first_row, first_column) on; zeros outside.
    __device__ __forceinline__ void fetch(const float* matrix, int pitch, int rows, int columns, int first_row, int first_column) {
        const int row = first_row + threadIdx.x / COLUMNS, column = first_column + threadIdx.x % COLUMNS;
        const int left = column < columns ? rows - row : 0;
        const unsigned at = static_cast<unsigned>(row) * pitch + column, step = static_cast<unsigned>(STEP) * pitch;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) values[i] = i * STEP < left ? matrix[at + i * step] : 0.0f;
    }

    __device__ __forceinline__ void store(float* shared, int pitch) const {
        float* to = shared + threadIdx.x / COLUMNS * pitch + threadIdx.x % COLUMNS;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) to[i * STEP * pitch] = values[i];
    }
};

// a[i] += ...: four values of K of a lane's four rows (rows 8 apart) against its eight columns.
template <class P>
__device__ __forceinline__ void multiply(const float* a_rows, const float* b_rows, int k, float (&sums)[4][8]) {
    float4 a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = *reinterpret_cast<const float4*>(a_rows + i * 8 * P::PITCH + k);
    if (P::B_ROWS) {
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            const float4 b = *reinterpret_cast<const float4*>(b_rows + j * 4 * P::PITCH + k);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                sums[i][j] = fmaf(a[i].w, b.w, fmaf(a[i].z, b.z, fmaf(a[i].y, b.y, fmaf(a[i].x, b.x, sums[i][j]))));
            }
        }
    } else {
#pragma unroll
        for (int step = 0; step < 4; ++step) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float4 b = *reinterpret_cast<const float4*>(b_rows + (k + step) * P::B_PITCH + half * 16);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float by = step == 0 ? a[i].x : step == 1 ? a[i].y : step == 2 ? a[i].z : a[i].w;
                    sums[i][half * 4] = fmaf(by, b.x, sums[i][half * 4]);
                    sums[i][half * 4 + 1] = fmaf(by, b.y, sums[i][half * 4 + 1]);
                    sums[i][half * 4 + 2] = fmaf(by, b.z, sums[i][half * 4 + 2]);
                    sums[i][half * 4 + 3] = fmaf(by, b.w, sums[i][half * 4 + 3]);
                }
            }
        }
    }
}

// The slices' sums of a tile, in `shared` (WARPS_K, BM, SUM_PITCH), of rows first_row... of A (rows x depth) and columns first_column... of B
// (columns x depth, or depth x columns). Every thread may read them at once.
template <class P>
__device__ __forceinline__ void product(
    const float* a, int a_pitch, int rows, const float* b, int b_pitch, int columns, int depth, int first_row, int first_column,
    float* shared) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int slice = warp / (P::WARPS_M * P::WARPS_N), place = warp % (P::WARPS_M * P::WARPS_N);
    const int row = place / P::WARPS_N * 32 + lane / 4;
    const int column = place % P::WARPS_N * 32 + (P::B_ROWS ? lane % 4 : lane % 4 * 4);
    float *a_shared = shared, *b_shared = shared + 2 * P::A_SIZE;
    Stage<P::BM, P::BK> a_stage;
    Stage<P::B_ROWS ? P::BN : P::BK, P::B_ROWS ? P::BK : P::BN> b_stage;
    float sums[4][8] = {};

    const auto fetch = [&](int k) {
        a_stage.fetch(a, a_pitch, rows, depth, first_row, k);
        if (P::B_ROWS) {
            b_stage.fetch(b, b_pitch, columns, depth, first_column, k);
        } else {
            b_stage.fetch(b, b_pitch, depth, columns, k, first_column);
        }
    };
    fetch(0);
    int buffer = 0;
    for (int k = 0; k < depth; k += P::BK, buffer ^= 1) {
        a_stage.store(a_shared + buffer * P::A_SIZE, P::PITCH);
        b_stage.store(b_shared + buffer * P::B_SIZE, P::B_PITCH);
        __syncthreads();
        if (k + P::BK < depth) fetch(k + P::BK);
        const float* a_rows = a_shared + buffer * P::A_SIZE + row * P::PITCH;
        const float* b_rows = b_shared + buffer * P::B_SIZE + (P::B_ROWS ? column * P::PITCH : column);
#pragma unroll 1  // a body of 128 FMAs is long enough, and two at once need too many registers on sm_100 and sm_120
        for (int at = 0; at < P::SLICE; at += 4) multiply<P>(a_rows, b_rows, slice * P::SLICE + at, sums);
    }
    __syncthreads();  // before the sums take the stages' place
    float* to = shared + (slice * P::BM + row) * P::SUM_PITCH + column;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (P::B_ROWS) {
#pragma unroll
            for (int j = 0; j < 8; ++j) to[i * 8 * P::SUM_PITCH + j * 4] = sums[i][j];
        } else {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                *reinterpret_cast<float4*>(to + i * 8 * P::SUM_PITCH + half * 16) = make_float4(
                    sums[i][half * 4], sums[i][half * 4 + 1], sums[i][half * 4 + 2], sums[i][half * 4 + 3]);
            }
        }
    }
    __syncthreads();
}

template <class P>
__device__ __forceinline__ float product_sum(const float* shared, int row, int column) {
    float sum = 0.0f;
#pragma unroll
    for (int slice = 0; slice < P::WARPS_K; ++slice) sum += shared[(slice * P::BM + row) * P::SUM_PITCH + column];
    return sum;
}
