// The instances of dgrad on tensor cores, float16, sm_75 and newer (an older GPU traps): see conv2d_mma.cuh.
// A name ends in its tile, rows x columns; each is bounded for the blocks that its shared memory lets a multiprocessor hold.

// gpucnn: compiled on first use

#include "conv2d_mma.cuh"

extern "C" __global__ void __launch_bounds__(128, 2) conv2d_dgrad_f16_128x128(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<MmaTile<float16, 128, 128, 2, 3, true, true>>(elements(dy), elements(w), mask, dx, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, BLOCKS_OF_48_KIB) conv2d_dgrad_f16_128x64(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<MmaTile<float16, 128, 64, 2, 4, true, true>>(elements(dy), elements(w), mask, dx, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_dgrad_f16_64x64(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<MmaTile<float16, 64, 64, 2, 4, true, true>>(elements(dy), elements(w), mask, dx, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_dgrad_f16_128x32(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<MmaTile<float16, 128, 32, 4, 4, true, true>>(elements(dy), elements(w), mask, dx, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_dgrad_f16_128x32_few(
    IN float16x8* __restrict__ dy, IN float16* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<MmaTile<float16, 128, 32, 4, 2, true, false>>(elements(dy), w, mask, dx, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_dgrad_f16_64x64_narrow(
    IN float16* __restrict__ dy, IN float16* __restrict__ w, IN float16* __restrict__ mask, OUT float16* __restrict__ dx,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_dgrad<MmaTile<float16, 64, 64, 2, 2, false, false>>(dy, w, mask, dx, partial, counters, g);
}
