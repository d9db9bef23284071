// The instances of wgrad on tensor cores, float16, sm_75 and newer (an older GPU traps): see conv2d_mma.cuh.
// A name ends in its tile, rows x columns; each is bounded for the blocks that its shared memory lets a multiprocessor hold.
// dw and db are float32; matmul_tn writes a product of matrices in float16.

// gpucnn: compiled on first use

#include "conv2d_mma.cuh"

extern "C" __global__ void __launch_bounds__(128, 2) conv2d_wgrad_f16_128x128(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 128, 128, 2, 3, true, true, (__CUDA_ARCH__ >= 800)>>(elements(x), elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, BLOCKS_OF_48_KIB) conv2d_wgrad_f16_128x64(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 128, 64, 2, 4, true, true>>(elements(x), elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, BLOCKS_OF_48_KIB) conv2d_wgrad_f16_64x128(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 64, 128, 2, 4, true, true>>(elements(x), elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_wgrad_f16_64x64(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 64, 64, 2, 4, true, true>>(elements(x), elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) conv2d_wgrad_f16_64x32_few(
    IN float16* __restrict__ x, IN float16x8* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 64, 32, 4, 2, true, false>>(x, elements(dy), dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_wgrad_f16_64x64_narrow(
    IN float16* __restrict__ x, IN float16* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 64, 64, 2, 2, false, false>>(x, dy, dw, db, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 4) matmul_tn_f16_64x64(
    IN float16x8* __restrict__ b, IN float16x8* __restrict__ a, OUT float16* __restrict__ c,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 64, 64, 2, 4, true, true>>(elements(b), elements(a), c, nullptr, partial, counters, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) matmul_tn_f16_64x64_narrow(
    IN float16* __restrict__ b, IN float16* __restrict__ a, OUT float16* __restrict__ c,
    INOUT float4* __restrict__ partial, INOUT unsigned* __restrict__ counters, MmaProblem g) {
    mma_wgrad<MmaTile<float16, 64, 64, 2, 2, false, false>>(b, a, c, nullptr, partial, counters, g);
}
