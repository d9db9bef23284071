// Hopper's own instructions (sm_90a), behind functions that take pointers: products of warpgroups straight from shared memory, barriers that
// count bytes, bulk copies, barriers of parts of a block. The emulator stands in for each (gpucnn/backends/emulator/include/hopper.h). For
// other GPUs they compile and trap: the host must not choose them.
//
// ---- wgmma (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions") ----
//
// A warpgroup is four warps, threads 128 i to 128 i + 127, which call these together.
//
//     wgmma_f16<N>, wgmma_bf16<N>   D (64, N) = A (64, 16) B (16, N), or += where `accumulate`; N is 8, 64, 128 or 256. Thread t of the
//                                   warpgroup, of warp w = t / 32 and lane l, holds in d[4 j + 2 h + i]: row 16 w + l / 4 + 8 h,
//                                   column 8 j + 2 (l % 4) + i.
//     wgmma_fence()                 before the first product, and whenever the thread has touched d since.
//     wgmma_commit()                ends a group of products.
//     wgmma_wait<G>()               until at most G groups are under way. Only then d holds the result, and only then A and B may be
//                                   overwritten; keep_registers(d) behind it keeps the compiler from moving d over it.
//     fence_proxy_async()           by the threads that wrote A or B (by stores or cp.async), before the barrier that tells of it.
//
// A and B lie in shared memory in lines of SWIZZLE bytes, 128 or 64, whose 16-byte chunks are swapped; a tile starts at a multiple of 8 lines.
// With t(l) = l % 8 for 128 and l / 2 % 4 for 64, usually a line is a row of M or N and runs along K:
//
//     (row r, k)   at r * SWIZZLE + ((k / 8) ^ t(r)) * 16 + k % 8 * 2;  the next 16 of K: 32 bytes on
//
// With M_MAJOR (A) or N_MAJOR (B) a line is one k and runs along V = SWIZZLE / 2 of M or N; panels of V are a_leading, b_leading bytes apart:
//
//     (row r, k)   at r / V * leading + k * SWIZZLE + ((r % V / 8) ^ t(k)) * 16 + r % 8 * 2;  the next 16 of K: 16 lines on
//
// ---- mbarrier (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier") ----
//
// A phase ends when as many threads have arrived as mbarrier_init said and all bytes that arrive_expect_tx announced have come;
// the next one begins at once. Phases have parity 0, 1, 0, ...; mbarrier_wait(barrier, parity) returns when the phase of that parity has ended.
//
//     bulk_copy(shared, global, bytes, barrier)   copies; its bytes count for the barrier's phase. All three multiples of 16.
//     cp_async_arrive(barrier)                    the thread arrives when its cp.async so far have come; it must be counted in init.
//
// ---- parts of a block ----
//
//     named_barrier_sync(id, threads), named_barrier_arrive(id, threads)   id 1 to 15; `threads` a multiple of 32; arrive goes on at once.
//     set_max_registers_decrease<R>()                                      of all warps of a warpgroup, R a multiple of 8 from 24 to 256.

#pragma once

#include "ptx.cuh"

#ifndef GPUCNN_EMULATED

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int GROUPS>
__device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}

template <int R>
__device__ __forceinline__ void keep_registers(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// PTX ISA, "Matrix Descriptor Format": start, leading and stride offsets in units of 16 bytes, and the code of the swizzle.
template <int SWIZZLE>
__device__ __forceinline__ unsigned long long wgmma_descriptor(const void* shared, int leading) {
    static_assert(SWIZZLE == 128 || SWIZZLE == 64, "a line has 128 or 64 bytes");
    const unsigned long long start = (shared_address(shared) & 0x3FFFFu) >> 4;
    const unsigned long long lead = static_cast<unsigned>(leading & 0x3FFFF) >> 4;
    return start | lead << 16 | 8ull * SWIZZLE / 16 << 32 | (SWIZZLE == 128 ? 1ull : 2ull) << 62;
}

// Operands %0 to %N / 2 - 1 of the instruction.
#define WGMMA_REGISTERS_8 "%0, %1, %2, %3"
#define WGMMA_OUTPUTS_8 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
#define WGMMA_REGISTERS_64 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_REGISTERS_128 \
    WGMMA_REGISTERS_64 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_REGISTERS_256 \
    WGMMA_REGISTERS_128 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_OUTPUTS_64 WGMMA_8(0), WGMMA_8(8), WGMMA_8(16), WGMMA_8(24)
#define WGMMA_OUTPUTS_128 WGMMA_OUTPUTS_64, WGMMA_8(32), WGMMA_8(40), WGMMA_8(48), WGMMA_8(56)
#define WGMMA_OUTPUTS_256 \
    WGMMA_OUTPUTS_128, WGMMA_8(64), WGMMA_8(72), WGMMA_8(80), WGMMA_8(88), WGMMA_8(96), WGMMA_8(104), WGMMA_8(112), WGMMA_8(120)

#define WGMMA_INSTRUCTION(shape, type, registers, outputs, a_at, b_at, accumulate_at, m_major_at, n_major_at)                    \
    asm volatile("{\n"                                                                                                            \
                 ".reg .pred p;\n"                                                                                                \
                 "setp.ne.b32 p, %" accumulate_at ", 0;\n"                                                                        \
                 "wgmma.mma_async.sync.aligned." shape "k16.f32." type "." type " {" registers "}, %" a_at ", %" b_at             \
                 ", p, 1, 1, %" m_major_at ", %" n_major_at ";\n"                                                                 \
                 "}\n"                                                                                                            \
                 : outputs                                                                                                        \
                 : "l"(wgmma_descriptor<SWIZZLE>(a, a_leading)), "l"(wgmma_descriptor<SWIZZLE>(b, b_leading)),                     \
                   "r"(static_cast<int>(accumulate)), "n"(static_cast<int>(M_MAJOR)), "n"(static_cast<int>(N_MAJOR)))

#define WGMMA(name, type)                                                                                                         \
    template <int N, bool M_MAJOR = false, bool N_MAJOR = false, int SWIZZLE = 128>                                               \
    __device__ __forceinline__ void name(                                                                                         \
        float (&d)[N / 2], const void* a, const void* b, bool accumulate, int a_leading = 16, int b_leading = 16) {               \
        static_assert(N == 8 || N == 64 || N == 128 || N == 256, "wgmma is wrapped for N = 8, 64, 128 and 256");                  \
        if constexpr (N == 8) {                                                                                                   \
            WGMMA_INSTRUCTION("m64n8", type, WGMMA_REGISTERS_8, WGMMA_OUTPUTS_8, "4", "5", "6", "7", "8");                        \
        } else if constexpr (N == 64) {                                                                                           \
            WGMMA_INSTRUCTION("m64n64", type, WGMMA_REGISTERS_64, WGMMA_OUTPUTS_64, "32", "33", "34", "35", "36");                \
        } else if constexpr (N == 128) {                                                                                          \
            WGMMA_INSTRUCTION("m64n128", type, WGMMA_REGISTERS_128, WGMMA_OUTPUTS_128, "64", "65", "66", "67", "68");             \
        } else {                                                                                                                  \
            WGMMA_INSTRUCTION("m64n256", type, WGMMA_REGISTERS_256, WGMMA_OUTPUTS_256, "128", "129", "130", "131", "132");        \
        }                                                                                                                         \
    }
WGMMA(wgmma_f16, "f16")
WGMMA(wgmma_bf16, "bf16")
#undef WGMMA
#undef WGMMA_INSTRUCTION

// Initialises the barrier; visible to the asynchronous proxy. A barrier of the block must follow before others use it.
__device__ __forceinline__ void mbarrier_init(unsigned long long* barrier, unsigned count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(unsigned long long* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive_expect_tx(unsigned long long* barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}

__device__ __forceinline__ void mbarrier_wait(unsigned long long* barrier, int parity) {
    unsigned done;
    do {
        asm volatile(
            "{\n"
            ".reg .pred p;\n"
            "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n"
            "}\n"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (done == 0);
}

__device__ __forceinline__ void bulk_copy(void* shared, const void* global, unsigned bytes, unsigned long long* barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(shared)),
                 "l"(global), "r"(bytes), "r"(shared_address(barrier))
                 : "memory");
}

__device__ __forceinline__ void cp_async_arrive(unsigned long long* barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}

template <int R>
__device__ __forceinline__ void set_max_registers_decrease() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(R));
}

#else  // not sm_90a

__device__ __forceinline__ void fence_proxy_async() { __trap(); }
__device__ __forceinline__ void wgmma_fence() { __trap(); }
__device__ __forceinline__ void wgmma_commit() { __trap(); }
template <int GROUPS>
__device__ __forceinline__ void wgmma_wait() { __trap(); }
template <int R>
__device__ __forceinline__ void keep_registers(float (&)[R]) {}
template <int N, bool M_MAJOR = false, bool N_MAJOR = false, int SWIZZLE = 128>
__device__ __forceinline__ void wgmma_f16(float (&)[N / 2], const void*, const void*, bool, int = 16, int = 16) { __trap(); }
template <int N, bool M_MAJOR = false, bool N_MAJOR = false, int SWIZZLE = 128>
__device__ __forceinline__ void wgmma_bf16(float (&)[N / 2], const void*, const void*, bool, int = 16, int = 16) { __trap(); }
__device__ __forceinline__ void mbarrier_init(unsigned long long*, unsigned) { __trap(); }
__device__ __forceinline__ void mbarrier_arrive(unsigned long long*) { __trap(); }
__device__ __forceinline__ void mbarrier_arrive_expect_tx(unsigned long long*, unsigned) { __trap(); }
__device__ __forceinline__ void mbarrier_wait(unsigned long long*, int) { __trap(); }
__device__ __forceinline__ void bulk_copy(void*, const void*, unsigned, unsigned long long*) { __trap(); }
__device__ __forceinline__ void cp_async_arrive(unsigned long long*) { __trap(); }
template <int R>
__device__ __forceinline__ void set_max_registers_decrease() {}

#endif

__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
    asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
    asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif
