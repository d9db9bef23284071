// The float32 matrix product that linear layers and the implicit-GEMM convolutions share, on the ordinary FMA units ("SIMT").
//
// A block computes a tile of BM x BN results. It walks along K in stages of BK terms: the two operands' slices of a stage (BM x BK and BK x BN)
// come from global into shared memory, and each thread adds the stage's products to its own TM x TN results, in registers:
//
//     for k in stage:  acc[i][j] += a(row i, k) * b(k, column j)      (TM + TN) / 4 reads of 128 bits from shared memory, TM * TN FMAs
//
// A warp is 32 x 64 results, LANES_M x LANES_N threads of 8 x 8 each: 64 FMAs share 4 reads of shared memory, in each of which 4 or 8
// lanes read one address.
//
// Shared memory is double-buffered. From sm_80 on, cp.async brings the next stage while this one is multiplied, with no register and no store
// instruction; before, it passes through registers and is stored after the products. One barrier a stage is enough either way.
//
// A slice lies in shared memory as its operand lies in global memory, so that both ends move 128 bits at a time:
//   memory along K         tile[row][k], rows of BK + 4 floats. A thread reads 4 k of a row at once. With that pitch 8 neighbouring rows
//                          begin in 8 different groups of 4 banks, so the lanes of a read take neighbouring rows, and row
//                          `permuted` of the operand is stored where the lane that owns that result looks for it.
//   memory along M (or N)  tile[k][row]. A thread reads 4 neighbouring rows of one k.
// Either way a thread's rows (columns) are groups of 4 that are 4 * LANES apart, and neither loads nor stores have bank conflicts
// (tests/kernels/test_gemm_banks.py).
//
// Where the operands come from is not known here. A source is a class with
//     static constexpr bool K_CONTIGUOUS      whether memory runs along K, or along M (N)
//     static constexpr int VEC                4: moves 128 bits at a time; 1: single floats
//     static constexpr int COUNT              runs of VEC elements that a thread moves in a stage, placed as Share says
//     auto tap()                              what this thread's runs of the current stage share
//     const float* run(int i, tap, bool& valid)   where run i of the current stage lies; not valid: it counts as zeros
//     void advance()                          moves on by one stage; called between two barriers, by all threads
// MatrixSource below is the plain matrix; conv2d_simt.cuh has those that gather convolution windows.
//
// Split-K: with gridDim.y > 1 each of these blocks sums its own part of K, and the last to arrive (last_block.cuh) adds the parts up, in an order
// that is fixed: join_parts.

#pragma once

#include "common.cuh"
#include "last_block.cuh"
#include "ptx.cuh"

#if __CUDA_ARCH__ >= 800
#define GPUCNN_ASYNC_COPIES 1
constexpr int STAGE = 16;  // terms of the vec4 instances' stages
constexpr int RESIDENT = __CUDA_ARCH__ < 1000 ? 3 : 2;  // blocks of a multiprocessor where both operands lie along K
#else
constexpr int STAGE = 8;  // what is on its way needs registers there
constexpr int RESIDENT = 2;
#endif

constexpr int TILE_PAD = 4;  // floats behind each row of a tile along K, see above

template <int BM_, int BN_, int BK_, int WARPS_M_, int WARPS_N_, int LANES_M_ = 4>
struct Tile {
    static constexpr int BM = BM_, BN = BN_, BK = BK_;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int LANES_M = LANES_M_, LANES_N = 32 / LANES_M_;  // a warp is LANES_M x LANES_N threads
    static constexpr int THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int TM = BM / (WARPS_M * LANES_M), TN = BN / (WARPS_N * LANES_N);
    static_assert(TM % 4 == 0 && TN % 4 == 0, "results come in groups of 4");
};

using Tile128x64 = Tile<128, 64, STAGE, 4, 1>;       // 128 threads of 8 x 8 results
using Tile64x128 = Tile<64, 128, STAGE, 2, 2>;       // 128 threads of 8 x 8
using Tile128x64Scalar = Tile<128, 64, STAGE, 4, 1>;  // 128 threads of 8 x 8
using Tile64x64Scalar = Tile<64, 64, 8, 4, 1>;       // 128 threads of 4 x 8
using Tile64x80Scalar = Tile<64, 80, STAGE, 2, 1, 8>;  // 64 threads of 4 x 20

// The row of the operand that is stored as row `stored` of a tile along K, for lanes that read neighbouring rows.
template <int LANES>
__device__ constexpr int permuted(int stored) {
    return stored / (4 * LANES) * (4 * LANES) + stored % LANES * 4 + stored / LANES % 4;
}

// The two operands: how many rows (columns) their slices have, and how many lanes of a warp share these.
template <class T>
struct OperandA {
    static constexpr int ROWS = T::BM, LANES = T::LANES_M;
};

template <class T>
struct OperandB {
    static constexpr int ROWS = T::BN, LANES = T::LANES_N;
};

// Which elements of its operand's stage a thread moves: COUNT runs of VEC neighbours in memory, all at the same place k() along K.
// Neighbouring threads take neighbouring runs, along K or along M (N), whichever memory runs along.
template <class T, class Operand, int VEC, bool K_CONTIGUOUS>
struct Share {
    static constexpr int ROWS = Operand::ROWS, OWNERS = Operand::LANES;
    static constexpr int COUNT = ROWS * T::BK / (T::THREADS * VEC);
    static constexpr int LANES = K_CONTIGUOUS ? T::BK / VEC : T::THREADS / T::BK;  // threads that lie along memory
    static constexpr int STEP = K_CONTIGUOUS ? T::THREADS / LANES : LANES * VEC;  // stored rows between runs
    // Single floats along M (N) are stored LANES at a time for each of 32 / LANES k, which go to banks side by side.
    static constexpr int PITCH = K_CONTIGUOUS ? T::BK + TILE_PAD : VEC == 4 ? ROWS : ROWS + (LANES + 256 - ROWS) % 32;
    static constexpr int SIZE = K_CONTIGUOUS ? ROWS * PITCH : T::BK * PITCH;  // floats of the tile
    static_assert(!K_CONTIGUOUS || (T::BK == 16 || T::BK == 8) && STEP % 8 == 0, "as spread() has it");
    static_assert(COUNT * T::THREADS * VEC == ROWS * T::BK, "the threads of a block share a stage evenly");

    __device__ static int k() {
        return K_CONTIGUOUS ? threadIdx.x % LANES * VEC : threadIdx.x / LANES;
    }
    __device__ static int stored_row() {  // of the first run
        return K_CONTIGUOUS ? spread(threadIdx.x / LANES) : threadIdx.x % LANES * VEC;
    }
    // The low three bits of a row's number changed about, so that rows which are stored at the same time do not begin in the same banks.
    __device__ static int spread(int row) {
        const int low = T::BK == 16 ? (row & 1) << 2 | (row & 2) | (row >> 2 & 1) : (row & 3) << 1 | (row >> 2 & 1);
        return (row & ~7) | low;
    }
    __device__ static int row() {  // the operand's, of the first run
        return K_CONTIGUOUS ? permuted<OWNERS>(stored_row()) : stored_row();
    }
    // From the first run's row to that of run i, the same for all threads: `permuted` permutes the bits of a row, and the step's are free.
    __device__ static constexpr int step(int i) {
        return K_CONTIGUOUS ? permuted<OWNERS>(i * STEP) : i * STEP;
    }
    // Where run i goes in the tile.
    __device__ static int place(int i) {
        return K_CONTIGUOUS ? (stored_row() + i * STEP) * PITCH + k() : k() * PITCH + stored_row() + i * STEP;
    }
};

__device__ __forceinline__ void load_run(const float* from, float (&to)[1]) {
    to[0] = *from;
}

__device__ __forceinline__ void load_run(const float* from, float (&to)[4]) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

__device__ __forceinline__ void store_run(float* to, const float (&from)[1]) {
    *to = from[0];
}

__device__ __forceinline__ void store_run(float* to, const float (&from)[4]) {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
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
template <class T, class Operand, int VEC_, bool K_CONTIGUOUS_>
struct MatrixSource {
    static constexpr int VEC = VEC_;
    static constexpr bool K_CONTIGUOUS = K_CONTIGUOUS_;
    using share = Share<T, Operand, VEC, K_CONTIGUOUS>;
    static constexpr int COUNT = share::COUNT;

    const float* first;  // of this thread's runs in the current stage
    int pitch;
    int rows_left;       // rows of the operand from the first run on
    int k_left;          // the same along K

    // The tile's rows begin at `first_row` of `rows`; K is read from k_begin to k_end.
    __device__ MatrixSource(const float* matrix, int pitch_, int first_row, int rows, int k_begin, int k_end) : pitch(pitch_) {
        const long long row = first_row + share::row();
        const long long k = k_begin + share::k();
        first = matrix + (K_CONTIGUOUS ? row * pitch + k : k * pitch + row);
        rows_left = rows - static_cast<int>(row);
        k_left = k_end - static_cast<int>(k);
    }

    __device__ __forceinline__ int tap() const {
        return 0;
    }

    __device__ __forceinline__ const float* run(int i, int, bool& valid) const {
        valid = (k_left > 0) & (share::step(i) < rows_left);
        return first + (K_CONTIGUOUS ? static_cast<long long>(share::step(i)) * pitch : share::step(i));
    }

    __device__ __forceinline__ void advance() {
        first += K_CONTIGUOUS ? T::BK : static_cast<long long>(T::BK) * pitch;
        k_left -= T::BK;
    }
};

// Brings a thread's share of the source's current stage into the operand's tile.
template <class Source>
__device__ __forceinline__ void copy_stage(const Source& source, float* tile) {
    const auto tap = source.tap();
#pragma unroll
    for (int i = 0; i < Source::COUNT; ++i) {
        bool valid;
        const float* from = source.run(i, tap, valid);
        float* to = tile + Source::share::place(i);
        if constexpr (Source::VEC == 4) {
            cp_async_16_zfill(to, from, valid);
        } else {
            cp_async_4_zfill(to, from, valid);
        }
    }
}

template <class Source>
__device__ __forceinline__ void fetch_stage(const Source& source, float (&values)[Source::COUNT][Source::VEC]) {
    const auto tap = source.tap();
#pragma unroll
    for (int i = 0; i < Source::COUNT; ++i) {
        bool valid;
        const float* from = source.run(i, tap, valid);
        zero_run(values[i]);
        if (valid) load_run(from, values[i]);
    }
}

template <class Source>
__device__ __forceinline__ void store_stage(float* tile, const float (&values)[Source::COUNT][Source::VEC]) {
#pragma unroll
    for (int i = 0; i < Source::COUNT; ++i) store_run(tile + Source::share::place(i), values[i]);
}

// The first row (column) of a thread's results in the tile; its groups of 4 then follow LANES_M * 4 (LANES_N * 4) apart.
template <class T>
__device__ __forceinline__ int warp_row() {
    return threadIdx.x / 32 / T::WARPS_N * (T::TM * T::LANES_M);
}

template <class T>
__device__ __forceinline__ int warp_column() {
    return threadIdx.x / 32 % T::WARPS_N * (T::TN * T::LANES_N);
}

// A warp's lanes along M and N. Neighbouring pairs of lanes differ in their rows, pairs of pairs in their columns: a read of 128 bits takes a warp four
// passes, one for each eight lanes, but two where lanes i and i ^ 1, or lanes i and i ^ 2, read the same address everywhere (as
// measured by others: not in NVIDIA's documents).
template <class T>
__device__ __forceinline__ int lane_row() {
    return threadIdx.x % 32 / (2 * T::LANES_N) * 2 + threadIdx.x % 2;
}

template <class T>
__device__ __forceinline__ int lane_column() {
    return threadIdx.x / 2 % T::LANES_N;
}

template <class T>
__device__ __forceinline__ int thread_row() {
    return warp_row<T>() + lane_row<T>() * 4;
}

template <class T>
__device__ __forceinline__ int thread_column() {
    return warp_column<T>() + lane_column<T>() * 4;
}

// Where in a tile of rows (columns) of PITCH floats lie four k of the thread's row i, or four of its rows, from i on, of one k.
template <bool K_CONTIGUOUS, int PITCH, int LANES>
__device__ __forceinline__ int fragment_place(int warp, int lane, int k, int i) {
    return K_CONTIGUOUS ? (warp + lane) * PITCH + k + i * LANES * PITCH : k * PITCH + warp + lane * 4 + i * LANES;
}

// Four k of a thread's rows (columns), from its operand's tile. `lane` counts the warp's lanes along the operand.
template <class Source, int LANES, int COUNT>
__device__ __forceinline__ void load_fragment(const float* tile, int warp, int lane, int k, float (&to)[4][COUNT]) {
    constexpr int PITCH = Source::share::PITCH;
    if constexpr (Source::K_CONTIGUOUS) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            const float4 v = *reinterpret_cast<const float4*>(tile + fragment_place<true, PITCH, LANES>(warp, lane, k, i));
            to[0][i] = v.x, to[1][i] = v.y, to[2][i] = v.z, to[3][i] = v.w;
        }
    } else {
#pragma unroll
        for (int kk = 0; kk < 4; ++kk) {
#pragma unroll
            for (int i = 0; i < COUNT; i += 4) {
                const float4 v = *reinterpret_cast<const float4*>(tile + fragment_place<false, PITCH, LANES>(warp, lane, k + kk, i));
                to[kk][i] = v.x, to[kk][i + 1] = v.y, to[kk][i + 2] = v.z, to[kk][i + 3] = v.w;
            }
        }
    }
}

// acc += the products of a stage that lies in the tiles.
template <class T, class SourceA, class SourceB>
__device__ __forceinline__ void multiply_stage(const float* a_tile, const float* b_tile, float (&acc)[T::TM][T::TN]) {
    const int lane_m = lane_row<T>(), lane_n = lane_column<T>();
#pragma unroll
    for (int k = 0; k < T::BK; k += 4) {
        float a[4][T::TM], b[4][T::TN];
        load_fragment<SourceA, T::LANES_M>(a_tile, warp_row<T>(), lane_m, k, a);
        load_fragment<SourceB, T::LANES_N>(b_tile, warp_column<T>(), lane_n, k, b);
#pragma unroll
        for (int kk = 0; kk < 4; ++kk) {
#pragma unroll
            for (int i = 0; i < T::TM; ++i) {
#pragma unroll
                for (int j = 0; j < T::TN; ++j) acc[i][j] = fmaf(a[kk][i], b[kk][j], acc[i][j]);
            }
        }
    }
}

// The sums of operand A's rows over K, which a block may take while A passes through its shared memory: the gradient of a bias where A is dy.
// A thread adds up a row's share of each stage.
template <class T>
struct RowSums {
    static constexpr int SHARES = T::THREADS / T::BM;  // threads of a row
    static_assert(SHARES * T::BM == T::THREADS && T::BK % SHARES == 0, "a thread has one row");
    float sum = 0.0f;

    template <int PITCH>
    __device__ __forceinline__ void add(const float* a_tile) {  // [BK][PITCH]
        const float* share = a_tile + threadIdx.x / T::BM * (T::BK / SHARES) * PITCH + threadIdx.x % T::BM;
#pragma unroll
        for (int k = 0; k < T::BK / SHARES; ++k) sum += share[k * PITCH];
    }

    // Leaves the sum of row i in thread i < BM. All threads call it.
    __device__ __forceinline__ void join() {
        __shared__ float sums[T::THREADS];
        sums[threadIdx.x] = sum;
        __syncthreads();
#pragma unroll
        for (int i = 1; i < SHARES; ++i) {
            if (threadIdx.x < T::BM) sum += sums[threadIdx.x + i * T::BM];
        }
    }
};

struct NoRowSums {
    template <int PITCH>
    __device__ __forceinline__ void add(const float*) {}
    __device__ __forceinline__ void join() {}
    static constexpr float sum = 0.0f;
};

// acc = A * B over `stages` stages from where the sources stand; `sums`, where `summing`, of A's rows. Every thread of the block must call it.
template <class T, class SourceA, class SourceB, class Sums>
__device__ __forceinline__ void gemm_mainloop(
    SourceA& a, SourceB& b, int stages, float (&acc)[T::TM][T::TN], Sums& sums, bool summing) {
    constexpr int A_SIZE = SourceA::share::SIZE, B_SIZE = SourceB::share::SIZE;
    __shared__ __align__(16) float a_tiles[2 * A_SIZE];
    __shared__ __align__(16) float b_tiles[2 * B_SIZE];

#pragma unroll
    for (int i = 0; i < T::TM; ++i) zero_run(acc[i]);
    if (stages <= 0) {
        __syncthreads();  // as after a stage: what the block wrote to shared memory before is there for everybody
        return;
    }

    float *a_tile = a_tiles, *b_tile = b_tiles;
    int next = A_SIZE, next_b = B_SIZE;  // from this buffer to the other
#ifdef GPUCNN_ASYNC_COPIES
    copy_stage(a, a_tile);
    copy_stage(b, b_tile);
    cp_async_commit();
#else
    float a_values[SourceA::COUNT][SourceA::VEC];
    float b_values[SourceB::COUNT][SourceB::VEC];
    fetch_stage(a, a_values);
    fetch_stage(b, b_values);
#endif
    for (int left = stages;; --left) {
#ifdef GPUCNN_ASYNC_COPIES
        cp_async_wait<0>();
#else
        store_stage<SourceA>(a_tile, a_values);
        store_stage<SourceB>(b_tile, b_values);
#endif
        __syncthreads();  // the stage is there, and everybody has finished with the other buffer
        if (left > 1) {
            a.advance();
            b.advance();
#ifdef GPUCNN_ASYNC_COPIES
            copy_stage(a, a_tile + next);
            copy_stage(b, b_tile + next_b);
            cp_async_commit();
#else
            fetch_stage(a, a_values);
            fetch_stage(b, b_values);
#endif
        }
        if (summing) sums.template add<SourceA::share::PITCH>(a_tile);
        multiply_stage<T, SourceA, SourceB>(a_tile, b_tile, acc);
        if (left == 1) break;
        a_tile += next, b_tile += next_b;
        next = -next, next_b = -next_b;
    }
    if (summing) sums.join();
}

// How many blocks join their parts at a time: about the root of their number, so that the sum of many parts is two short ones.
// (The host computes the same, split_k.py.)
constexpr int FEW_PARTS = 4;

__device__ __forceinline__ int parts_of_a_group(int parts) {
    int group = FEW_PARTS;
    while (group * group < parts) ++group;
    return group;
}

// Adds `count` parts to acc and row_sum (thread i: of row i), `stride` floats apart, from the first on.
template <class T, bool SUMS>
__device__ __forceinline__ void add_parts(
    const float* first, long long stride, int count, float (&acc)[T::TM][T::TN], float& row_sum) {
#pragma unroll
    for (int i = 0; i < T::TM; ++i) zero_run(acc[i]);
    row_sum = 0.0f;
    for (int part = 0; part < count; ++part, first += stride) {
        const float4* from = reinterpret_cast<const float4*>(first) + threadIdx.x;
#pragma unroll
        for (int i = 0; i < T::TM; ++i) {
#pragma unroll
            for (int j = 0; j < T::TN; j += 4) {
                const float4 v = read_written(from + (i * T::TN + j) / 4 * T::THREADS);
                acc[i][j] += v.x, acc[i][j + 1] += v.y, acc[i][j + 2] += v.z, acc[i][j + 3] += v.w;
            }
        }
        if (SUMS && threadIdx.x < T::BM) row_sum += read_written(first + T::BM * T::BN + threadIdx.x);
    }
}

template <class T, bool SUMS>
__device__ __forceinline__ void write_part(float* part, const float (&acc)[T::TM][T::TN], float row_sum) {
    float4* to = reinterpret_cast<float4*>(part) + threadIdx.x;
#pragma unroll
    for (int i = 0; i < T::TM; ++i) {
#pragma unroll
        for (int j = 0; j < T::TN; j += 4) {
            to[(i * T::TN + j) / 4 * T::THREADS] = make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
        }
    }
    if (SUMS && threadIdx.x < T::BM) part[T::BM * T::BN + threadIdx.x] = row_sum;
}

// Adds up the parts of a tile that gridDim.y blocks have computed, and says whether this is the block that now holds the sum (the last one).
// Groups of blocks join first, then the groups' sums; both in the order of the parts. A part lies in the workspace in the order of the threads
// that own it, so that these read and write 128 bits side by side: (parts, tiles, BM * BN + (SUMS ? BM : 0)) floats. Counters: tiles * (groups + 1).
template <class T, bool SUMS>
__device__ __forceinline__ bool join_parts(float* workspace, unsigned* counters, float (&acc)[T::TM][T::TN], float& row_sum) {
    const int parts = gridDim.y;
    constexpr int SIZE = T::BM * T::BN + (SUMS ? T::BM : 0);
    long long stride = static_cast<long long>(gridDim.x) * SIZE;
    float* tile = workspace + static_cast<long long>(blockIdx.x) * SIZE;
    const int size = parts_of_a_group(parts), groups = ceil_div(parts, size), group = blockIdx.y / size;
    unsigned* counter = counters + blockIdx.x * (groups + 1);
    int members = min(size, parts - group * size);
    int slot = blockIdx.y, first = group * size;  // where this block's part goes, and the group's first part
    unsigned* place = counter + 1 + group;
#pragma unroll 1
    for (int left = parts == 1 ? 0 : groups == 1 ? 1 : 2; left > 0; --left) {
        write_part<T, SUMS>(tile + slot * stride, acc, row_sum);
        if (!arrives_last(place, members)) return false;
        add_parts<T, SUMS>(tile + first * stride, stride, members, acc, row_sum);
        slot = group, first = 0, stride *= size, members = groups, place = counter;  // now a group's sum is a part
    }
    return true;
}

// What happens to a result on its way out: + bias[column], then max(result, 0), then 0 where the mask, which lies like the results, is not above 0.
struct Epilogue {
    const float* bias;  // or null
    const float* mask;  // or null
    bool relu;
};

__device__ __forceinline__ float finished(float value, const Epilogue& epilogue) {
    return epilogue.relu && value < 0.0f ? 0.0f : value;  // keeps NaN
}

// Where the rows of a block's results begin in `out`, negative for rows that do not exist: in shared memory, because only the epilogue needs
// it and the main loop has no registers to spare.
template <class T>
struct RowOffsets {
    long long at[T::BM];

    // All threads call it before the main loop, whose barriers make it known; `offset(i)` is the offset of the tile's row i.
    template <class Offset>
    __device__ __forceinline__ void fill(Offset offset) {
        for (int row = threadIdx.x; row < T::BM; row += T::THREADS) at[row] = offset(row);
    }
};

// Writes a block's results to columns first_column to `columns` of the rows of `out` (and of the mask) that `rows` names.
template <class T, int VEC>
__device__ __forceinline__ void gemm_epilogue(
    const float (&acc)[T::TM][T::TN], float* out, const Epilogue& epilogue, const RowOffsets<T>& rows, int first_column, int columns) {
    const int column = first_column + thread_column<T>();
    float shift[T::TN];
#pragma unroll
    for (int j = 0; j < T::TN; ++j) {
        const int distance = j / 4 * 4 * T::LANES_N + j % 4;
        shift[j] = epilogue.bias != nullptr && column + distance < columns ? epilogue.bias[column + distance] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < T::TM; ++i) {
        const long long offset = rows.at[thread_row<T>() + i / 4 * 4 * T::LANES_M + i % 4];
        if (offset < 0) continue;
        float* to = out + offset + column;
        const float* keep = epilogue.mask + offset + column;
#pragma unroll
        for (int j = 0; j < T::TN; j += VEC) {
            const int distance = j / 4 * 4 * T::LANES_N + j % 4;
            if (column + distance >= columns) continue;
            float values[VEC];
#pragma unroll
            for (int v = 0; v < VEC; ++v) values[v] = finished(acc[i][j + v] + shift[j + v], epilogue);
            if (epilogue.mask != nullptr) {
                float mask[VEC];
                load_run(keep + distance, mask);
#pragma unroll
                for (int v = 0; v < VEC; ++v) values[v] = mask[v] > 0.0f ? values[v] : 0.0f;
            }
            store_run(to + distance, values);
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
