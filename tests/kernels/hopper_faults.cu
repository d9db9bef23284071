// What the wrappers of kernels/hopper.cuh must not be given: `which` says what goes wrong, 0 nothing.

#include "../../kernels/common.cuh"
#include "../../kernels/hopper.cuh"

enum { NOTHING, NO_FENCE, READ_EARLY, OVERWRITTEN, OFF_TILE, NO_WAIT, OUTSIDE };

extern "C" __global__ void __launch_bounds__(128) multiply(OUT float* __restrict__ y, int which) {
    extern __shared__ __align__(1024) unsigned char tiles[];
    for (int i = threadIdx.x; i < 4096; i += 128) reinterpret_cast<unsigned*>(tiles)[i] = 0x3C003C00;  // ones
    fence_proxy_async();
    __syncthreads();
    float d[32];
    if (which != NO_FENCE) wgmma_fence();
    const unsigned char* a = tiles + (which == OFF_TILE ? 128 : which == OUTSIDE ? 15 * 1024 : 0);
    for (int k = 0; k < 2; ++k) wgmma_f16<64>(d, a + 32 * k, tiles + 8192 + 32 * k, k > 0);
    wgmma_commit();
    if (which == OVERWRITTEN && threadIdx.x == 5) tiles[8192 + 40 * 128] = 1;
    float early = which == READ_EARLY ? d[7] : 0.0f;
    if (which != NO_WAIT) wgmma_wait<0>();
    keep_registers(d);
    float sum = early;
    for (int i = 0; i < 32; ++i) sum += d[i];
    y[threadIdx.x] = sum;
}

enum { UNINITIALISED = 1, NO_BYTES, READ_UNAWAITED, ODD_BYTES, ONE_TOO_MANY, OTHER_COUNT, ALONE };

extern "C" __global__ void __launch_bounds__(64) fetch(IN float4* __restrict__ x, OUT float* __restrict__ y, int which) {
    extern __shared__ __align__(128) float stage[];
    unsigned long long* barrier = reinterpret_cast<unsigned long long*>(stage + 64);
    if (threadIdx.x == 0 && which != UNINITIALISED) mbarrier_init(barrier, 1);
    named_barrier_sync(2, which == OTHER_COUNT && threadIdx.x >= 32 ? 32 : 64);
    if (threadIdx.x == 0) {
        mbarrier_arrive_expect_tx(barrier, which == NO_BYTES ? 512 : 256);
        if (which == ONE_TOO_MANY) mbarrier_arrive(barrier);
        bulk_copy(stage, x, which == ODD_BYTES ? 252 : 256, barrier);
    }
    if (which == ALONE && threadIdx.x < 32) named_barrier_sync(3, 64);
    if (which == READ_UNAWAITED) __syncthreads();
    else mbarrier_wait(barrier, 0);
    y[threadIdx.x] = stage[threadIdx.x];
}
