// Uses of every wrapper of kernels/hopper.cuh.

#include "../../kernels/common.cuh"
#include "../../kernels/half.cuh"
#include "../../kernels/hopper.cuh"

constexpr int PANEL = 64;  // halves of a row of a tile in shared memory

// A tile of `rows` rows of 64 halves, from row-major x of the given pitch (halves), by 16 bytes, swizzled as wgmma wants it.
__device__ __forceinline__ void stage_tile(void* tile, const unsigned short* x, int pitch, int rows) {
    for (int i = threadIdx.x; i < rows * 8; i += blockDim.x) {
        const int row = i / 8, chunk = i % 8;
        cp_async_16(static_cast<unsigned char*>(tile) + row * 128 + ((chunk ^ (row % 8)) * 16), x + row * pitch + chunk * 8);
    }
}

template <int N>
__device__ __forceinline__ void store_d(float* d, const float (&r)[N / 2]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < N / 2; ++i)
        d[(16 * warp + lane / 4 + i / 2 % 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = r[i];
}

// D (64, N) = A (64, K) B (N, K) transposed, K a multiple of 64: two stages, of which the products of one run while the other is filled.
template <int N, bool bfloat>
__device__ __forceinline__ void product(const unsigned short* a, const unsigned short* b, float* d, int k) {
    extern __shared__ __align__(1024) unsigned char stages[];
    constexpr int A = 64 * 128, STAGE = A + N * 128;
    float r[N / 2];
    stage_tile(stages, a, k, 64);
    stage_tile(stages + A, b, k, N);
    cp_async_commit();
    for (int i = 0; i < k / PANEL; ++i) {
        const unsigned char* stage = stages + i % 2 * STAGE;
        cp_async_wait<0>();
        fence_proxy_async();
        __syncthreads();
        wgmma_fence();
        for (int kk = 0; kk < 4; ++kk) {
            if constexpr (bfloat) wgmma_bf16<N>(r, stage + kk * 32, stage + A + kk * 32, i + kk > 0);
            else wgmma_f16<N>(r, stage + kk * 32, stage + A + kk * 32, i + kk > 0);
        }
        wgmma_commit();
        wgmma_wait<1>();  // the products of the other stage have ended
        __syncthreads();
        if (i + 1 < k / PANEL) {
            stage_tile(stages + (i + 1) % 2 * STAGE, a + (i + 1) * PANEL, k, 64);
            stage_tile(stages + (i + 1) % 2 * STAGE + A, b + (i + 1) * PANEL, k, N);
        }
        cp_async_commit();
    }
    wgmma_wait<0>();
    keep_registers(r);
    store_d<N>(d, r);
}

extern "C" __global__ void __launch_bounds__(128) product_f16_64(IN float16x8* __restrict__ a, IN float16x8* __restrict__ b, OUT float* __restrict__ d, int k) {
    product<64, false>(&a->v[0].bits, &b->v[0].bits, d, k);
}

extern "C" __global__ void __launch_bounds__(128) product_f16_128(IN float16x8* __restrict__ a, IN float16x8* __restrict__ b, OUT float* __restrict__ d, int k) {
    product<128, false>(&a->v[0].bits, &b->v[0].bits, d, k);
}

extern "C" __global__ void __launch_bounds__(128) product_bf16_256(IN bfloat16x8* __restrict__ a, IN bfloat16x8* __restrict__ b, OUT float* __restrict__ d, int k) {
    product<256, true>(&a->v[0].bits, &b->v[0].bits, d, k);
}

// D (64, 128) += A (32, 64) transposed times B (32, 128): the rows of both run along M and N.
extern "C" __global__ void __launch_bounds__(128) product_of_columns(IN float16x8* __restrict__ a, IN float16x8* __restrict__ b, INOUT float* __restrict__ d) {
    __shared__ __align__(1024) unsigned char tile_a[32 * 128], tile_b[2 * 32 * 128];
    stage_tile(tile_a, &a->v[0].bits, 64, 32);
    for (int panel = 0; panel < 2; ++panel) stage_tile(tile_b + panel * 32 * 128, &b->v[0].bits + panel * PANEL, 128, 32);
    cp_async_commit();
    cp_async_wait<0>();
    fence_proxy_async();
    __syncthreads();
    float r[64];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < 64; ++i) r[i] = d[(16 * warp + lane / 4 + i / 2 % 2 * 8) * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2];
    wgmma_fence();
    for (int kk = 0; kk < 2; ++kk) wgmma_f16<128, true, true>(r, tile_a + kk * 2048, tile_b + kk * 2048, true, 16, 32 * 128);
    wgmma_commit();
    wgmma_wait<0>();
    keep_registers(r);
    store_d<128>(d, r);
}

// The same in lines of 64 bytes: two panels of 32 of A, four of B.
extern "C" __global__ void __launch_bounds__(128) product_of_short_columns(IN float16x8* __restrict__ a, IN float16x8* __restrict__ b, INOUT float* __restrict__ d) {
    __shared__ __align__(1024) unsigned char tile_a[2 * 32 * 64], tile_b[4 * 32 * 64];
    for (int i = threadIdx.x; i < 32 * 8; i += 128) {
        const int k = i / 8, chunk = i % 8, place = chunk / 4 * 32 * 64 + k * 64 + ((chunk % 4) ^ (k / 2 % 4)) * 16;
        cp_async_16(tile_a + place, a + i);
        cp_async_16(tile_b + place, b + k * 16 + chunk);
        cp_async_16(tile_b + place + 2 * 32 * 64, b + k * 16 + 8 + chunk);
    }
    cp_async_commit();
    cp_async_wait<0>();
    fence_proxy_async();
    __syncthreads();
    float r[64];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < 64; ++i) r[i] = d[(16 * warp + lane / 4 + i / 2 % 2 * 8) * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2];
    wgmma_fence();
    for (int kk = 0; kk < 2; ++kk) wgmma_f16<128, true, true, 64>(r, tile_a + kk * 1024, tile_b + kk * 1024, true, 32 * 64, 32 * 64);
    wgmma_commit();
    wgmma_wait<0>();
    keep_registers(r);
    store_d<128>(d, r);
}

// D (64, 64) = A (64, 32) B (64, 32) transposed, in lines of 64 bytes.
extern "C" __global__ void __launch_bounds__(128) product_of_short_rows(IN bfloat16x8* __restrict__ a, IN bfloat16x8* __restrict__ b, OUT float* __restrict__ d) {
    __shared__ __align__(1024) unsigned char tile_a[64 * 64], tile_b[64 * 64];
    for (int i = threadIdx.x; i < 64 * 4; i += 128) {
        const int row = i / 4, chunk = i % 4, place = row * 64 + (chunk ^ (row / 2 % 4)) * 16;
        cp_async_16(tile_a + place, a + i);
        cp_async_16(tile_b + place, b + i);
    }
    cp_async_commit();
    cp_async_wait<0>();
    fence_proxy_async();
    __syncthreads();
    float r[32];
    wgmma_fence();
    for (int kk = 0; kk < 2; ++kk) wgmma_bf16<64, false, false, 64>(r, tile_a + kk * 32, tile_b + kk * 32, kk > 0);
    wgmma_commit();
    wgmma_wait<0>();
    keep_registers(r);
    store_d<64>(d, r);
}

// y = x + 1 by a producer warp, which fills two stages of 256 floats by bulk copies, and a consumer warp.
extern "C" __global__ void __launch_bounds__(64) produce_and_consume(IN float4* __restrict__ x, OUT float* __restrict__ y, int tiles) {
    __shared__ __align__(128) float stage[2][256];
    __shared__ unsigned long long full[2], empty[2];
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; ++i) {
            mbarrier_init(&full[i], 1);
            mbarrier_init(&empty[i], 32);
        }
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        for (int i = 0; i < tiles; ++i) {
            if (i >= 2) mbarrier_wait(&empty[i % 2], (i / 2 - 1) % 2);
            if (threadIdx.x == 0) {
                mbarrier_arrive_expect_tx(&full[i % 2], sizeof stage[0]);
                for (int part = 0; part < 2; ++part) bulk_copy(&stage[i % 2][128 * part], x + i * 64 + 32 * part, 512, &full[i % 2]);
            }
        }
    } else {
        for (int i = 0; i < tiles; ++i) {
            mbarrier_wait(&full[i % 2], i / 2 % 2);
            for (int j = threadIdx.x - 32; j < 256; j += 32) y[i * 256 + j] = stage[i % 2][j] + 1.0f;
            mbarrier_arrive(&empty[i % 2]);
        }
    }
}

// Two pairs of warps, each with a barrier of its own: y = x with each pair's 64 elements reversed. cp.async arrives at an mbarrier.
extern "C" __global__ void __launch_bounds__(128) pairs_of_warps(IN float* __restrict__ x, OUT float* __restrict__ y) {
    __shared__ float stage[128];
    __shared__ unsigned long long copied[2];
    const int pair = threadIdx.x / 64, place = threadIdx.x % 64;
    set_max_registers_decrease<40>();
    if (place == 0) mbarrier_init(&copied[pair], 64);
    named_barrier_sync(1 + pair, 64);
    cp_async_4(&stage[threadIdx.x], x + threadIdx.x);
    cp_async_arrive(&copied[pair]);
    mbarrier_wait(&copied[pair], 0);
    y[threadIdx.x] = stage[64 * pair + 63 - place];
    if (pair == 0) named_barrier_arrive(3, 128);
    else named_barrier_sync(3, 128);
}
