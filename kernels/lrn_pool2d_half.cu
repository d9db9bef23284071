// Backward of local response normalisation beside max pooling, float16 and bfloat16 (lrn_pool2d.cuh).
//
// gpucnn: compiled on first use

#include "lrn_pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256) lrn_backward_pool_9_float16x8(
    IN float16* __restrict__ dy, IN ucharx8* __restrict__ index, IN float16x8* __restrict__ x, OUT float16x8* __restrict__ dx, Pool2dGeometry g, int planes,
    float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    window_backward_pool<float16x8, 4>(dy, index, x, dx, g, planes, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) max_pool2d_backward_lrn_9_float16x8(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ pooled, IN ucharx8* __restrict__ index, OUT float16x8* __restrict__ dx, Pool2dGeometry g,
    int strip, float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    pool_backward_window<float16x8, 4>(dy, pooled, index, dx, g, strip, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_pool_9_bfloat16x8(
    IN bfloat16* __restrict__ dy, IN ucharx8* __restrict__ index, IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ dx, Pool2dGeometry g, int planes,
    float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    window_backward_pool<bfloat16x8, 4>(dy, index, x, dx, g, planes, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) max_pool2d_backward_lrn_9_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN bfloat16x8* __restrict__ pooled, IN ucharx8* __restrict__ index, OUT bfloat16x8* __restrict__ dx, Pool2dGeometry g,
    int strip, float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    pool_backward_window<bfloat16x8, 4>(dy, pooled, index, dx, g, strip, alpha_over_size, k, factor, mask, warp_rows);
}
