// The instance of wgrad on two warpgroups' wgmma, bfloat16, sm_90a (another GPU traps): see conv2d_wgmma.cuh.

// gpucnn: compiled on first use

#define MMA_BLOCK_THREADS 256
#include "conv2d_wgmma.cuh"

extern "C" __global__ void __launch_bounds__(256, 1) conv2d_wgrad_bf16_128x256_wgmma(
    IN bfloat16x8* __restrict__ x, IN bfloat16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<WgmmaTile<bfloat16, 256, 8>>(elements(x), elements(dy), dw, db, partial, counters, g);
}
