// The instance of dgrad on two warpgroups' wgmma, float16, sm_90a (another GPU traps): see conv2d_wgmma.cuh.

// gpucnn: compiled on first use

#define MMA_BLOCK_THREADS 256
#include "conv2d_wgmma.cuh"

extern "C" __global__ void __launch_bounds__(256, 1) conv2d_dgrad_f16_128x256_wgmma(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<WgmmaTile<float16, 256, 8>>(elements(dy), elements(w), mask, dx, partial, counters, g);
}
