// The convolutions of conv2d_mma.cuh on Hopper's wgmma (sm_90a), float16 and bfloat16: the same operands, epilogues and parts of K, with another
// main loop. mma.sync reaches some six tenths of a Hopper's rate; wgmma takes its factors from shared memory without registers and ldmatrix.
//
// A block is one warpgroup of 128 threads, or two (MMA_BLOCK_THREADS 256) that share operand B. Each computes 64 x BN results, BN = 64, 128 or
// 256: one wgmma of 64 x BN x 16 twice a stage of BK = 32. Operands come by cp.async as they do there; in shared memory they lie in lines of
// 64 bytes, as wgmma's 64-byte swizzle has them: along K in the very places of place(), along M or N in panels of 32 elements, a line each.
//
// One group of products is under way while the next stage is waited for, so a stage may be overwritten two stages later: STAGES - 2 stages
// are on their way. Dynamic shared memory: STAGES stages and 1024 bytes, for the first begins at a multiple of 512 and wgrad's bias
// gradient takes 8 lines of ones behind the last.

#pragma once

#include "conv2d_mma.cuh"
#include "hopper.cuh"

constexpr int WGMMA_ALIGNMENT = 512;  // of a tile: 8 lines of 64 bytes

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || (defined(GPUCNN_EMULATED) && __CUDA_ARCH__ == 900)
constexpr bool HAS_WGMMA = true;
#else
constexpr bool HAS_WGMMA = false;
#endif

template <class T, int BN, int STAGES_>
struct WgmmaTile : MmaTile<T, MMA_THREADS / 2, BN, MMA_WARPS, STAGES_, true, true, HAS_WGMMA> {
    static constexpr int STAGES = STAGES_;
    static_assert(STAGES >= 4, "two stages are read while at least two are on their way");
};

// Where a chunk lies in a stage, in bytes from its operand's begin.
template <class share>
__device__ __forceinline__ int wgmma_place(int thread, int i) {
    if constexpr (share::K_CONTIGUOUS) return share::offset(thread, i);
    const int k = share::line(thread, i), chunk = share::chunk(thread, i);
    return chunk / 4 * (share::BK * LINE_BYTES) + k * LINE_BYTES + ((chunk % 4) ^ (k >> 1 & 3)) * CHUNK_BYTES;
}

template <class Source>
__device__ __forceinline__ void wgmma_copy(const Source& source, unsigned char* tile) {
    using share = typename Source::share;
    const typename Source::Stage stage = source.stage();
#pragma unroll
    for (int i = 0; i < share::COUNT; ++i) {
        const typename Source::T* from;
        const bool valid = source.address(stage, i, from);
        cp_async_16_zfill(tile + wgmma_place<share>(threadIdx.x, i), from, valid);
    }
}

// d += A B for one step of 16 places along K.
template <class T, int N, bool M_MAJOR, bool N_MAJOR>
__device__ __forceinline__ void wgmma_step(float (&d)[N / 2], const unsigned char* a, const unsigned char* b) {
    constexpr int PANEL_BYTES = LINE_BYTES / static_cast<int>(sizeof(T)) * LINE_BYTES;
    if constexpr (TensorCore<T>::LEAST_ARCH == 750) {
        wgmma_f16<N, M_MAJOR, N_MAJOR, LINE_BYTES>(d, a, b, true, PANEL_BYTES, PANEL_BYTES);
    } else {
        wgmma_bf16<N, M_MAJOR, N_MAJOR, LINE_BYTES>(d, a, b, true, PANEL_BYTES, PANEL_BYTES);
    }
}

// The pipeline over `stages` stages. With SUMS, A is multiplied by the ones of `ones` too.
template <class G, bool SUMS, class SourceA, class SourceB>
__device__ __forceinline__ void wgmma_pipeline(
    SourceA& a, SourceB& b, int stages, unsigned char* shared, const unsigned char* ones, float (&d)[G::BN / 2], float (&sums)[4]) {
    using T = typename G::T;
    constexpr bool M_MAJOR = !SourceA::share::K_CONTIGUOUS, N_MAJOR = !SourceB::share::K_CONTIGUOUS;
    constexpr int A_STEP = M_MAJOR ? 16 * LINE_BYTES : 32, B_STEP = N_MAJOR ? 16 * LINE_BYTES : 32;
    constexpr int AHEAD = G::STAGES - 2;
    // Where the warpgroup's 64 rows of A begin; told by one lane, so that the compiler knows it is the same for all.
    const int my_rows = MMA_THREADS == 128 ? 0 : __shfl_sync(0xFFFFFFFFu, static_cast<int>(threadIdx.x) / 128, 0) * (64 * LINE_BYTES);
    int write = 0;
    const auto fetch = [&](bool exists) {
        if (exists) {
            wgmma_copy(a, shared + write);
            wgmma_copy(b, shared + write + G::A_BYTES);
            a.advance();
            b.advance();
        }
        cp_async_commit();  // a group may be empty: each stage counts as one
        write = write == (G::STAGES - 1) * G::STAGE_BYTES ? 0 : write + G::STAGE_BYTES;
    };
    for (int stage = 0; stage < AHEAD; ++stage) fetch(stage < stages);
    int read = 0;
    for (int left = stages; left > 0; --left) {
        cp_async_wait<AHEAD - 1>();
        fence_proxy_async();
        __syncthreads();  // the stage is there for all, and the products of the one before the last have ended for all
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            const unsigned char* factor = shared + read + my_rows + step * A_STEP;
            wgmma_step<T, G::BN, M_MAJOR, N_MAJOR>(d, factor, shared + read + G::A_BYTES + step * B_STEP);
            if constexpr (SUMS) wgmma_step<T, 8, M_MAJOR, false>(sums, factor, ones);
        }
        wgmma_commit();
        fetch(left > AHEAD);
        wgmma_wait<1>();
        read = read == (G::STAGES - 1) * G::STAGE_BYTES ? 0 : read + G::STAGE_BYTES;
    }
    wgmma_wait<0>();
    keep_registers(d);
    if constexpr (SUMS) keep_registers(sums);
    __syncthreads();  // the epilogue overwrites what the products have read
}

// results = A B over `stages` stages from where the sources stand, as mma_mainloop does it.
template <class G, class SourceA, class SourceB>
__device__ __forceinline__ void wgmma_mainloop(SourceA& a, SourceB& b, int stages, unsigned char* shared, Results<G>& results) {
    shared += (WGMMA_ALIGNMENT - __cvta_generic_to_shared(shared) % WGMMA_ALIGNMENT) % WGMMA_ALIGNMENT;
    unsigned* ones = reinterpret_cast<unsigned*>(shared + G::STAGES * G::STAGE_BYTES);  // 8 lines
    float d[G::BN / 2], sums[4];
#pragma unroll
    for (int i = 0; i < G::BN / 2; ++i) d[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = 0.0f;
    if constexpr (SourceA::share::K_CONTIGUOUS) {
        wgmma_pipeline<G, false>(a, b, stages, shared, nullptr, d, sums);
    } else if (results.wants_sums) {  // the same in the whole block
        if (threadIdx.x < 128) ones[threadIdx.x] = TensorCore<typename G::T>::ONES;
        wgmma_pipeline<G, true>(a, b, stages, shared, reinterpret_cast<const unsigned char*>(ones), d, sums);
    } else {
        wgmma_pipeline<G, false>(a, b, stages, shared, nullptr, d, sums);
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
        results.sums[0][v] = sums[v];
#pragma unroll
        for (int j = 0; j < G::NI; ++j) results.v[0][j][v] = d[4 * j + v];
    }
}

// A tile of wgmma goes through the main loop above wherever the directions of conv2d_mma.cuh call theirs.
template <class G, class T, int ROWS, bool WIDE, class Shape, class SourceB>
__device__ __forceinline__ void mma_mainloop(
    WindowSource<T, ROWS, WIDE, Shape>& a, SourceB& b, int stages, unsigned char* shared, Results<G>& results) {
    wgmma_mainloop<G>(a, b, stages, shared, results);
}

template <class G, class T, int ROWS, bool WIDE, class SourceB>
__device__ __forceinline__ void mma_mainloop(
    MatrixSource<T, ROWS, false, WIDE>& a, SourceB& b, int stages, unsigned char* shared, Results<G>& results) {
    wgmma_mainloop<G>(a, b, stages, shared, results);
}
