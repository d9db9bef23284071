// The float32 matrix product that linear layers and the implicit-GEMM convolutions share, on the ordinary FMA units ("SIMT").
//
// A block computes a tile of BM x BN results. It walks along K in stages of BK = 8 or 16: the two operands' slices of a stage (BM x BK
// and BK x BN) come from global memory into shared memory, both transposed so that K is the outer index, and each thread then adds
// the stage's products to its own TM x TN results, in registers:
//
//     for k in stage:  acc[i][j] += a_tile[k][row i] * b_tile[k][column j]      TM + TN reads from shared memory, TM * TN FMAs
//
// Shared memory is double-buffered: while a stage is multiplied, the next one is on its way from global memory into registers, and is
// stored to the other buffer afterwards, so that one barrier a stage is enough.
//
// Threads of a warp lie as 4 x 8 on the tile, a thread's rows (columns) in groups of 4 that are 4 lanes (8 lanes) apart: then a warp reads
// 4 different float4 of a_tile and 8 of b_tile at a time, without bank conflicts. Rows of the shared tiles are padded by 4 floats: a run of
// 4 neighbours along K goes to 4 rows of the tile, and with this pitch the 32 lanes of a warp write to 32 banks (16 if BK is 16).
//
// Where the operands come from is not known here. A source is a class with
//     static constexpr bool K_CONTIGUOUS   whether memory runs along K, or along M (N)
//     static constexpr int VEC             4: reads 128 bits at a time; 1: reads single floats
//     void fetch(float (&values)[COUNT][VEC])   this thread's share of the current stage, zero outside the operand
//     void advance()                            moves on by one stage
// MatrixSource below is the plain matrix; conv2d_simt.cu has those that gather convolution windows.

#pragma once

#include "common.cuh"

constexpr int TILE_PAD = 4;  // floats behind each row of a shared tile, see above
constexpr int LANES_M = 4;   // a warp is LANES_M x LANES_N threads
constexpr int LANES_N = 8;

template <int BM_, int BN_, int BK_, int WARPS_M_, int WARPS_N_>
struct Tile {
    static constexpr int BM = BM_, BN = BN_, BK = BK_;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int TM = BM / (WARPS_M * LANES_M), TN = BN / (WARPS_N * LANES_N);
};

// 128 threads each. Longer stages need more registers for what is on its way, which the larger tiles do not have, nor the scalar instances.
using Tile128x64 = Tile<128, 64, 8, 4, 1>;  // 8 x 8 results a thread
using Tile64x128 = Tile<64, 128, 8, 2, 2>;  // 8 x 8
using Tile64x64 = Tile<64, 64, 16, 4, 1>;   // 4 x 8
using Tile64x64Scalar = Tile<64, 64, 8, 4, 1>;

// Which elements of its operand's stage a thread fetches: COUNT runs of VEC neighbours in memory, all at the same place k() along K.
// Neighbouring threads take neighbouring runs, along K or along M (N), whichever memory runs along.
template <class T, int MN, int VEC, bool K_CONTIGUOUS>
struct Share {
    static constexpr int COUNT = MN * T::BK / (T::THREADS * VEC);
    static constexpr int LANES = K_CONTIGUOUS ? T::BK / VEC : T::THREADS / T::BK;  // threads that lie along memory
    static constexpr int STEP = K_CONTIGUOUS ? T::THREADS / LANES : LANES * VEC;       // rows between runs
    static_assert(COUNT * T::THREADS * VEC == MN * T::BK, "the threads of a block share a stage evenly");

    __device__ static int k() {
        return K_CONTIGUOUS ? threadIdx.x % LANES * VEC : threadIdx.x / LANES;
    }
    __device__ static int row(int run) {
        return (K_CONTIGUOUS ? threadIdx.x / LANES : threadIdx.x % LANES * VEC) + run * STEP;
    }
};

__device__ __forceinline__ void load_run(const float* from, float (&to)[1]) {
    to[0] = *from;
}

__device__ __forceinline__ void load_run(const float* from, float (&to)[4]) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

template <int VEC>
__device__ __forceinline__ void zero_run(float (&to)[VEC]) {
#pragma unroll
    for (int v = 0; v < VEC; ++v) to[v] = 0.0f;
}

// The arrays of kernels that take float4*, which asks the host for alignment, as the floats that they are.
__device__ __forceinline__ const float* floats(const float4* array) {
    return reinterpret_cast<const float*>(array);
}

__device__ __forceinline__ float* floats(float4* array) {
    return reinterpret_cast<float*>(array);
}

// An operand that lies in memory as a matrix: element (row, k) at row * pitch + k (K_CONTIGUOUS) or at k * pitch + row.
template <class T, int MN, int VEC_, bool K_CONTIGUOUS_>
struct MatrixSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = K_CONTIGUOUS_;
    using share = Share<T, MN, VEC, K_CONTIGUOUS>;
    static constexpr int COUNT = share::COUNT;

    const float* run;     // the first of this thread's runs in the current stage
    long long run_step;   // from one run to the next
    long long stage_step;
    int rows_left;        // rows of the operand from the first run on
    int k_left;           // the same along K

    // The tile's rows begin at `first_row` of `rows`; K is read from k_begin to k_end.
    __device__ MatrixSource(const float* matrix, long long pitch, int first_row, int rows, int k_begin, int k_end) {
        const int row = first_row + share::row(0);
        const int k = k_begin + share::k();
        run = matrix + (K_CONTIGUOUS ? row * pitch + k : k * pitch + row);
        run_step = K_CONTIGUOUS ? share::STEP * pitch : share::STEP;
        stage_step = K_CONTIGUOUS ? T::BK : T::BK * pitch;
        rows_left = rows - row;
        k_left = k_end - k;
    }

    __device__ __forceinline__ void fetch(float (&values)[COUNT][VEC]) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            zero_run(values[i]);
            if (k_left > 0 && i * share::STEP < rows_left) load_run(run + i * run_step, values[i]);
        }
    }

    __device__ __forceinline__ void advance() {
        run += stage_step;
        k_left -= T::BK;
    }
};

// Stores a thread's share of a stage into the operand's shared tile, where K is the outer index.
template <class T, int MN, int VEC, bool K_CONTIGUOUS, int COUNT>
__device__ __forceinline__ void store_share(float (&tile)[T::BK][MN + TILE_PAD], const float (&values)[COUNT][VEC]) {
    using share = Share<T, MN, VEC, K_CONTIGUOUS>;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        if constexpr (!K_CONTIGUOUS && VEC == 4) {
            *reinterpret_cast<float4*>(&tile[share::k()][share::row(i)]) =
                make_float4(values[i][0], values[i][1], values[i][2], values[i][3]);
        } else {
#pragma unroll
            for (int v = 0; v < VEC; ++v) tile[share::k() + v][share::row(i)] = values[i][v];  // VEC is 1 unless K_CONTIGUOUS
        }
    }
}

// The first row (column) of a thread's results in the tile; its groups of 4 then follow LANES_M * 4 (LANES_N * 4) apart.
template <class T>
__device__ __forceinline__ int thread_row() {
    return threadIdx.x / 32 / T::WARPS_N * (T::TM * LANES_M) + threadIdx.x % 32 / LANES_N * 4;
}

template <class T>
__device__ __forceinline__ int thread_column() {
    return threadIdx.x / 32 % T::WARPS_N * (T::TN * LANES_N) + threadIdx.x % LANES_N * 4;
}

// Reads groups of 4 that lie 4 * LANES apart.
template <int COUNT, int LANES>
__device__ __forceinline__ void load_fragment(const float* from, float (&to)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        const float4 v = *reinterpret_cast<const float4*>(from + i * LANES);
        to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
}

// acc = A * B over `stages` stages from where the sources stand. Every thread of the block must call it.
template <class T, class SourceA, class SourceB>
__device__ __forceinline__ void gemm_mainloop(SourceA& a, SourceB& b, int stages, float (&acc)[T::TM][T::TN]) {
    __shared__ __align__(16) float a_tile[2][T::BK][T::BM + TILE_PAD];
    __shared__ __align__(16) float b_tile[2][T::BK][T::BN + TILE_PAD];

#pragma unroll
    for (int i = 0; i < T::TM; ++i) zero_run(acc[i]);
    if (stages == 0) {
        __syncthreads();  // as after a stage: what the block wrote to shared memory before is there for everybody
        return;
    }

    float a_values[SourceA::COUNT][SourceA::VEC];
    float b_values[SourceB::COUNT][SourceB::VEC];
    a.fetch(a_values);
    b.fetch(b_values);
    int buffer = 0;
    for (int left = stages;; --left) {
        store_share<T, T::BM, SourceA::VEC, SourceA::K_CONTIGUOUS>(a_tile[buffer], a_values);
        store_share<T, T::BN, SourceB::VEC, SourceB::K_CONTIGUOUS>(b_tile[buffer], b_values);
        __syncthreads();  // also: everybody has finished with the other buffer
        if (left > 1) {
            a.advance();
            b.advance();
            a.fetch(a_values);
            b.fetch(b_values);
        }
#pragma unroll
        for (int k = 0; k < T::BK; ++k) {
            float a_fragment[T::TM], b_fragment[T::TN];
            load_fragment<T::TM, LANES_M>(&a_tile[buffer][k][thread_row<T>()], a_fragment);
            load_fragment<T::TN, LANES_N>(&b_tile[buffer][k][thread_column<T>()], b_fragment);
#pragma unroll
            for (int i = 0; i < T::TM; ++i) {
#pragma unroll
                for (int j = 0; j < T::TN; ++j) acc[i][j] = fmaf(a_fragment[i], b_fragment[j], acc[i][j]);
            }
        }
        if (left == 1) return;
        buffer ^= 1;
    }
}

// Which results a block computes. Kernels keep it in shared memory (written by thread 0 before the main loop): only the
// epilogue needs it again, and the main loop has no registers to spare for what it does not use.
struct Block {
    int first_row, rows;        // of all rows, `rows` exist
    int first_column, columns;
    int outer;                  // which group or batch
};

// Writes a block's results, plus bias[column] where bias is given. `row_offset(row)` is where a row of the results begins in `out`.
template <class T, int VEC, class RowOffset>
__device__ __forceinline__ void gemm_epilogue(
    const float (&acc)[T::TM][T::TN], float* out, const float* bias, const Block& block, RowOffset row_offset) {
    float shift[T::TN];
#pragma unroll
    for (int j = 0; j < T::TN; ++j) {
        const int column = block.first_column + thread_column<T>() + j / 4 * 4 * LANES_N + j % 4;
        shift[j] = bias != nullptr && column < block.columns ? bias[column] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < T::TM; ++i) {
        const int row = block.first_row + thread_row<T>() + i / 4 * 4 * LANES_M + i % 4;
        if (row >= block.rows) continue;
        float* out_row = out + row_offset(row);
#pragma unroll
        for (int j = 0; j < T::TN; j += VEC) {
            const int column = block.first_column + thread_column<T>() + j / 4 * 4 * LANES_N + j % 4;
            if (column >= block.columns) continue;
            if constexpr (VEC == 4) {
                *reinterpret_cast<float4*>(out_row + column) = make_float4(
                    acc[i][j] + shift[j], acc[i][j + 1] + shift[j + 1], acc[i][j + 2] + shift[j + 2], acc[i][j + 3] + shift[j + 3]);
            } else {
                out_row[column] = acc[i][j] + shift[j];
            }
        }
    }
}

// The place of the tile of block `index`: tiles of a row of tiles are neighbours, so that blocks that run together share operand A.
struct TileIndex {
    int m, n, outer;  // outer counts whole grids of tiles: a batch, a group, a phase
    __device__ TileIndex(unsigned index, int tiles_m, int tiles_n) {
        n = index % tiles_n;
        m = index / tiles_n % tiles_m;
        outer = index / tiles_n / tiles_m;
    }
};
