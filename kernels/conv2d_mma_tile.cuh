// The matrix product on tensor cores that the convolutions of conv2d_mma.cuh are made of: D (M, N) = sum over K of A (M, K) B (K, N), float16,
// bfloat16 or tf32 factors (tf32: float32 in memory, rounded to 10 mantissa bits as it leaves shared memory), float32 sums.
//
// A block of MMA_WARPS warps computes BM x BN results: 4, or 8 in the pairs of conv2d_wgmma.cuh, which has its own main loop. It walks along K in stages of 64 bytes a row: BK = 32 half or 16 float elements. Each warp
// owns WM x WN of the results as MI x NI fragments of 16 x 8 (mma.sync.m16n8k16, m16n8k8 for tf32; sm_75 makes m16n8k16 of two m16n8k8).
//
// Instances that read 16 bytes at a time ("wide") are a pipeline on sm_80 and newer: STAGES - 1 stages are on their way by cp.async while one
// is multiplied. The others, and sm_75, fetch the next stage into registers while one is multiplied, and store it behind that.
//
// Shared memory holds operands in 16-byte chunks, in lines: where memory runs along K, a line is one of the tile's rows (4 chunks); where it runs
// along M or N, a line is one place along K (BM or BN elements). place() exchanges the chunks of a line so that no access has a bank
// conflict: 8 lanes write or read 8 chunks in 8 different groups of 4 banks. So do the epilogue's.
//
// Where operands come from is not known here. A source is a class with
//     using share                              which chunks a thread copies (Share)
//     Stage stage()                            what its chunks of the current stage have in common            (wide)
//     bool address(stage, int i, const T*& from)   where chunk i lies; false: it is zero                      (wide)
//     void gather(Run<T> (&runs)[COUNT])       the chunks of the current stage, element by element            (narrow)
//     void advance()                           moves on by one stage

#pragma once

#include "common.cuh"
#include "half.cuh"
#include "ptx.cuh"

extern __shared__ __align__(128) unsigned char mma_shared[];

#ifndef MMA_BLOCK_THREADS  // a source may say 256 before it includes this
#define MMA_BLOCK_THREADS 128
#endif
constexpr int MMA_THREADS = MMA_BLOCK_THREADS;
constexpr int MMA_WARPS = MMA_THREADS / 32;
constexpr int LINE_BYTES = 64;  // of a row of an operand in one stage
constexpr int CHUNK_BYTES = 16;

// Blocks of the tiles of 128 x 64 and 64 x 128 that a multiprocessor holds: sm_75 has no registers for three, because what is on its way passes through them.
constexpr int BLOCKS_OF_48_KIB = __CUDA_ARCH__ >= 800 ? 3 : 2;

// The first architecture whose tensor cores take T, and the bits of a register that holds nothing but ones.
template <class T> struct TensorCore;
template <> struct TensorCore<float16> { static constexpr int LEAST_ARCH = 750; static constexpr unsigned ONES = 0x3C003C00u; };
template <> struct TensorCore<bfloat16> { static constexpr int LEAST_ARCH = 800; static constexpr unsigned ONES = 0x3F803F80u; };
template <> struct TensorCore<float> { static constexpr int LEAST_ARCH = 800; static constexpr unsigned ONES = 0x3F800000u; };

// Not FITS: an architecture for which the compiler finds too few registers; the kernel traps there, and the host does not choose it.
template <class T_, int BM_, int BN_, int WARPS_M_, int STAGES_, bool WIDE_A_, bool WIDE_B_, bool FITS = true>
struct MmaTile {
    using T = T_;
    static constexpr int BM = BM_, BN = BN_, BK = LINE_BYTES / sizeof(T);
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = MMA_WARPS / WARPS_M;
    static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N;
    static constexpr int MI = WM / 16, NI = WN / 8;
    static constexpr bool WIDE_A = WIDE_A_, WIDE_B = WIDE_B_;
#if __CUDA_ARCH__ >= 800
    static constexpr bool ASYNC = WIDE_A && WIDE_B;
#else
    static constexpr bool ASYNC = false;
#endif
    static constexpr bool SUPPORTED = FITS && __CUDA_ARCH__ >= TensorCore<T>::LEAST_ARCH;
    static constexpr int STAGES = ASYNC ? STAGES_ : 2;
    static constexpr int A_BYTES = BM * LINE_BYTES, B_BYTES = BN * LINE_BYTES, STAGE_BYTES = A_BYTES + B_BYTES;
};

// What a thread accumulates: its elements of the results, and for wgrad of the sums of A's rows (the bias' gradient), which is A times ones.
template <class G>
struct Results {
    float v[G::MI][G::NI][4];
    float sums[G::MI][4];
    bool wants_sums;  // the same in all threads of a warp
};

__device__ __forceinline__ int lane_index() {
    return threadIdx.x % 32;
}

template <class G>
__device__ __forceinline__ int warp_row() {
    return threadIdx.x / 32 / G::WARPS_N * G::WM;
}

template <class G>
__device__ __forceinline__ int warp_column() {
    return threadIdx.x / 32 % G::WARPS_N * G::WN;
}

// ---- shared memory ---------------------------------------------------------------------------------------------------

// Where a chunk of a line lies, in bytes from the tile's begin; lines have WIDTH chunks. Without PAIRS, the same chunk of 8 neighbouring lines
// lies in 8 different groups of 4 banks (ldmatrix), and so do 4 neighbouring chunks of 2 lines. With PAIRS, 2 neighbouring chunks of 4 lines do
// (tf32 fragments, which are read as single floats, and pairs of float results), and 8 neighbouring chunks of a line.
template <int WIDTH, bool PAIRS>
__device__ __forceinline__ int place(int line, int chunk) {
    int twist;
    if constexpr (PAIRS) {
        twist = WIDTH >= 8 ? (line & 3) << 1 : (line >> 1 & 1) << 1;
    } else {
        twist = WIDTH >= 8 ? (line & 1) << 2 | (line >> 1 & 3) : line >> 1 & 3;
    }
    return (line * WIDTH + (chunk ^ twist)) * CHUNK_BYTES;
}

// Which chunks of an operand's stage a thread copies; ROWS is BM or BN. Neighbouring threads take neighbouring chunks of a line.
template <class T, int ROWS_, bool K_CONTIGUOUS_>
struct Share {
    static constexpr int ROWS = ROWS_;
    static constexpr bool K_CONTIGUOUS = K_CONTIGUOUS_;
    static constexpr int VEC = CHUNK_BYTES / sizeof(T);  // elements of a chunk
    static constexpr int BK = LINE_BYTES / sizeof(T);
    static constexpr int WIDTH = K_CONTIGUOUS ? BK / VEC : ROWS / VEC;
    static constexpr int COUNT = ROWS * BK / VEC / MMA_THREADS;
    static constexpr int STEP = MMA_THREADS / 4;  // rows between chunks, on either side
    static constexpr int ABREAST = K_CONTIGUOUS ? WIDTH : MMA_THREADS / BK;  // threads that share a line
    static constexpr int GROUP = K_CONTIGUOUS ? WIDTH : 128 / BK;            // neighbours among them; the next 128 threads take the chunks beside
    static constexpr bool PAIRS = !K_CONTIGUOUS && sizeof(T) == 4;
    static_assert(STEP == (K_CONTIGUOUS ? MMA_THREADS / ABREAST : ABREAST * VEC), "a thread's chunks are STEP rows apart");
    static_assert(COUNT * MMA_THREADS * VEC == ROWS * BK, "the threads of a block share a stage evenly");

    __device__ static int line(int thread, int i) {
        if constexpr (K_CONTIGUOUS || MMA_THREADS == 128) return thread / ABREAST + (K_CONTIGUOUS ? i * STEP : 0);
        return thread % 128 / GROUP;
    }
    __device__ static int chunk(int thread, int i) {
        if constexpr (K_CONTIGUOUS || MMA_THREADS == 128) return thread % ABREAST + (K_CONTIGUOUS ? 0 : i * ABREAST);
        return thread % GROUP + thread / 128 * GROUP + i * ABREAST;
    }
    __device__ static int offset(int thread, int i) {
        return place<WIDTH, PAIRS>(line(thread, i), chunk(thread, i));
    }
    __device__ static int k() {  // of the first element of all of this thread's chunks, from the stage's begin
        return K_CONTIGUOUS ? chunk(threadIdx.x, 0) * VEC : line(threadIdx.x, 0);
    }
    __device__ static int row(int i) {  // of the first element of chunk i, from the tile's begin
        return K_CONTIGUOUS ? line(threadIdx.x, i) : chunk(threadIdx.x, i) * VEC;
    }
};

// A chunk in registers, element by element.
template <class T>
struct Run {
    T v[CHUNK_BYTES / sizeof(T)];
};

__device__ __forceinline__ uint4 packed(const Run<float>& run) {
    return make_uint4(__float_as_uint(run.v[0]), __float_as_uint(run.v[1]), __float_as_uint(run.v[2]), __float_as_uint(run.v[3]));
}

template <class T>
__device__ __forceinline__ unsigned packed(T low, T high) {
    return static_cast<unsigned>(low.bits) | static_cast<unsigned>(high.bits) << 16;
}

template <class T>
__device__ __forceinline__ uint4 packed(const Run<T>& run) {
    return make_uint4(packed(run.v[0], run.v[1]), packed(run.v[2], run.v[3]), packed(run.v[4], run.v[5]), packed(run.v[6], run.v[7]));
}

template <class Source>
__device__ __forceinline__ void copy_async(const Source& source, unsigned char* tile) {
    using share = typename Source::share;
    const typename Source::Stage stage = source.stage();
#pragma unroll
    for (int i = 0; i < share::COUNT; ++i) {
        const typename Source::T* from;
        const bool valid = source.address(stage, i, from);
        cp_async_16_zfill(tile + share::offset(threadIdx.x, i), from, valid);
    }
}

// A thread's chunks of one stage on their way through registers.
template <class Source, bool WIDE = Source::WIDE>
struct Staged {
    using share = typename Source::share;
    uint4 chunks[share::COUNT];

    __device__ __forceinline__ void fetch(const Source& source) {
        const typename Source::Stage stage = source.stage();
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) {
            const typename Source::T* from;
            const bool valid = source.address(stage, i, from);
            chunks[i] = make_uint4(0, 0, 0, 0);
            if (valid) chunks[i] = *reinterpret_cast<const uint4*>(from);
        }
    }
    __device__ __forceinline__ void store(unsigned char* tile) const {
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) *reinterpret_cast<uint4*>(tile + share::offset(threadIdx.x, i)) = chunks[i];
    }
};

template <class Source>
struct Staged<Source, false> {
    using share = typename Source::share;
    Run<typename Source::T> runs[share::COUNT];

    __device__ __forceinline__ void fetch(const Source& source) {
        source.gather(runs);
    }
    __device__ __forceinline__ void store(unsigned char* tile) const {
#pragma unroll
        for (int i = 0; i < share::COUNT; ++i) *reinterpret_cast<uint4*>(tile + share::offset(threadIdx.x, i)) = packed(runs[i]);
    }
};

// ---- fragments -------------------------------------------------------------------------------------------------------

__device__ __forceinline__ void multiply(float16, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    mma_m16n8k16_f16(d, a, b);
#else
    const unsigned low[2] = {a[0], a[1]}, high[2] = {a[2], a[3]};
    mma_m16n8k8_f16(d, low, b[0]);
    mma_m16n8k8_f16(d, high, b[1]);
#endif
}

__device__ __forceinline__ void multiply(bfloat16, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b);
}

__device__ __forceinline__ void multiply(float, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_m16n8k8_tf32(d, a, b);
}

template <class T>
__device__ __forceinline__ void round_fragment(unsigned (&fragment)[4]) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int i = 0; i < 4; ++i) fragment[i] = __float_as_uint(to_tf32(__uint_as_float(fragment[i])));
    }
}

// A fragment is four registers, of four matrices of 8 x 8 halves (8 x 4 floats). A's matrices lie at (0, 0) (1, 0) (0, 1) (1, 1) as (row, k);
// those of two fragments of B at (0, 0) (0, 1) (1, 0) (1, 1). `row` is a multiple of 16 from the tile's begin, `step` one of the stage's two.

// Where the line of a matrix begins whose address a lane gives to ldmatrix, in bytes.
template <class share, bool IS_A>
__device__ __forceinline__ int matrix_line(int lane, int row, int step) {
    const int matrix = lane / 8, along_row = IS_A ? matrix & 1 : matrix >> 1, along_k = IS_A ? matrix >> 1 : matrix & 1;
    if constexpr (share::K_CONTIGUOUS) return place<share::WIDTH, false>(row + along_row * 8 + lane % 8, step * 2 + along_k);
    return place<share::WIDTH, false>(step * 16 + along_k * 8 + lane % 8, row / 8 + along_row);
}

// Where a lane's float of register i lies, in bytes: for tf32 along M or N, because ldmatrix transposes 16-bit elements only.
template <class share, bool IS_A>
__device__ __forceinline__ int fragment_float(int lane, int row, int step, int i) {
    const int along_row = IS_A ? i & 1 : i >> 1, along_k = IS_A ? i >> 1 : i & 1;
    const int k = step * 8 + along_k * 4 + lane % 4, at = row + along_row * 8 + lane / 4;
    return place<share::WIDTH, true>(k, at / 4) + at % 4 * 4;
}

// The same for the i-th fragment from there on and another step, found from the first one's place alone: `place` exchanges chunks by an
// exclusive or, and a warp's rows begin where i does not carry, so that i and the step are an exclusive or or a sum with a constant.
template <class share>
__device__ __forceinline__ int moved_line(int first, int i, int step) {
    if constexpr (share::K_CONTIGUOUS) return (first ^ step * (2 * CHUNK_BYTES)) + i * (16 * LINE_BYTES);
    return (first ^ i * (2 * CHUNK_BYTES)) + step * (16 * share::WIDTH * CHUNK_BYTES);
}

// `first` is fragment_float(lane, row, 0, 0).
template <class share, bool IS_A>
__device__ __forceinline__ int moved_float(int first, int i, int step, int v) {
    const int along_row = IS_A ? v & 1 : v >> 1, along_k = IS_A ? v >> 1 : v & 1;
    return (first ^ (i * 4 + along_row * 2) * CHUNK_BYTES) + (step * 8 + along_k * 4) * (share::WIDTH * CHUNK_BYTES);
}

// Where a lane's first fragment lies, in bytes from the operand's tile; `row` is the warp's first.
template <class share, bool IS_A>
__device__ __forceinline__ int first_fragment(int row) {
    return share::PAIRS ? fragment_float<share, IS_A>(lane_index(), row, 0, 0) : matrix_line<share, IS_A>(lane_index(), row, 0);
}

template <class share, bool IS_A, class T>
__device__ __forceinline__ void load_fragments(const unsigned char* tile, int first, int i, int step, unsigned (&fragment)[4]) {
    if constexpr (share::K_CONTIGUOUS) {
        ldmatrix_x4(fragment, tile + moved_line<share>(first, i, step));
    } else if constexpr (!share::PAIRS) {
        ldmatrix_x4_trans(fragment, tile + moved_line<share>(first, i, step));
    } else {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
            fragment[v] = *reinterpret_cast<const unsigned*>(tile + moved_float<share, IS_A>(first, i, step, v));
        }
    }
    round_fragment<T>(fragment);
}

template <class G, class ShareA, class ShareB>
__device__ __forceinline__ void multiply_stage(const unsigned char* stage, int first_a, int first_b, Results<G>& results) {
    using T = typename G::T;
    const unsigned char *a_tile = stage, *b_tile = stage + G::A_BYTES;
#pragma unroll
    for (int step = 0; step < 2; ++step) {
        unsigned a[G::MI][4];
#pragma unroll
        for (int i = 0; i < G::MI; ++i) load_fragments<ShareA, true, T>(a_tile, first_a, i, step, a[i]);
#pragma unroll
        for (int j = 0; j < G::NI; j += 2) {
            unsigned two[4];
            load_fragments<ShareB, false, T>(b_tile, first_b, j / 2, step, two);
            const unsigned left[2] = {two[0], two[1]}, right[2] = {two[2], two[3]};
#pragma unroll
            for (int i = 0; i < G::MI; ++i) {
                multiply(T(), results.v[i][j], a[i], left);
                multiply(T(), results.v[i][j + 1], a[i], right);
            }
        }
        if (results.wants_sums) {
            const unsigned one[2] = {TensorCore<T>::ONES, TensorCore<T>::ONES};
#pragma unroll
            for (int i = 0; i < G::MI; ++i) multiply(T(), results.sums[i], a[i], one);
        }
    }
}

// ---- the main loop ---------------------------------------------------------------------------------------------------

// results += A B over `stages` stages from where the sources stand. All threads of the block call it; `shared` holds STAGES stages.
template <class G, class SourceA, class SourceB>
__device__ __forceinline__ void mma_mainloop(SourceA& a, SourceB& b, int stages, unsigned char* shared, Results<G>& results) {
    using ShareA = typename SourceA::share;
    using ShareB = typename SourceB::share;
    const int first_a = first_fragment<ShareA, true>(warp_row<G>()), first_b = first_fragment<ShareB, false>(warp_column<G>());
#pragma unroll
    for (int i = 0; i < G::MI; ++i) {
#pragma unroll
        for (int v = 0; v < 4; ++v) {
            results.sums[i][v] = 0.0f;
#pragma unroll
            for (int j = 0; j < G::NI; ++j) results.v[i][j][v] = 0.0f;
        }
    }
    if constexpr (G::ASYNC) {
        for (int stage = 0; stage < G::STAGES - 1; ++stage) {
            if (stage < stages) {
                copy_async(a, shared + stage * G::STAGE_BYTES);
                copy_async(b, shared + stage * G::STAGE_BYTES + G::A_BYTES);
                a.advance();
                b.advance();
            }
            cp_async_commit();  // a group may be empty: each stage counts as one
        }
        int read = 0, write = (G::STAGES - 1) * G::STAGE_BYTES;
        for (int left = stages; left > 0; --left) {
            cp_async_wait<G::STAGES - 2>();
            __syncthreads();  // the stage is there for all, and all have finished with the one before, which is written next
            if (left >= G::STAGES) {
                copy_async(a, shared + write);
                copy_async(b, shared + write + G::A_BYTES);
                a.advance();
                b.advance();
            }
            cp_async_commit();
            multiply_stage<G, ShareA, ShareB>(shared + read, first_a, first_b, results);
            write = read;
            read = read == (G::STAGES - 1) * G::STAGE_BYTES ? 0 : read + G::STAGE_BYTES;
        }
    } else if (stages > 0) {
        Staged<SourceA> a_staged;
        Staged<SourceB> b_staged;
        a_staged.fetch(a);
        b_staged.fetch(b);
        int buffer = 0;
        for (int left = stages; left > 0; --left) {
            a_staged.store(shared + buffer);
            b_staged.store(shared + buffer + G::A_BYTES);
            __syncthreads();  // also: all have finished with the other buffer
            if (left > 1) {
                a.advance();
                b.advance();
                a_staged.fetch(a);
                b_staged.fetch(b);
            }
            multiply_stage<G, ShareA, ShareB>(shared + buffer, first_a, first_b, results);
            buffer = G::STAGE_BYTES - buffer;
        }
    }
    __syncthreads();  // shared memory is free again
}
