// The instances of wgrad on wgmma, float16, sm_90a (another GPU traps): see conv2d_wgmma.cuh.
// A name ends in its tile, rows x columns; each is bounded for the blocks that its shared memory lets a multiprocessor hold.

// gpucnn: compiled on first use

#include "conv2d_wgmma.cuh"

extern "C" __global__ void __launch_bounds__(128, 2) conv2d_wgrad_f16_64x256_wgmma(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<WgmmaTile<float16, 256, 5>>(elements(x), elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_wgrad_f16_64x128_wgmma(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<WgmmaTile<float16, 128, 5>>(elements(x), elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_wgrad_f16_64x64_wgmma(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<WgmmaTile<float16, 64, 6>>(elements(x), elements(dy), dw, db, partial, counters, g);
}
