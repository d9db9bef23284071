// Backward of local response normalisation beside max pooling, float32 (lrn_pool2d.cuh): the lecture network's.

#include "lrn_pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256) lrn_backward_pool_9_vec4(
    IN float* __restrict__ dy, IN uchar4* __restrict__ index, IN float4* __restrict__ x, OUT float4* __restrict__ dx, Pool2dGeometry g, int planes,
    float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    window_backward_pool<float4, 4>(dy, index, x, dx, g, planes, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) max_pool2d_backward_lrn_9_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ pooled, IN uchar4* __restrict__ index, OUT float4* __restrict__ dx, Pool2dGeometry g,
    int strip, float alpha_over_size, float k, float factor, int mask, int warp_rows) {
    pool_backward_window<float4, 4>(dy, pooled, index, dx, g, strip, alpha_over_size, k, factor, mask, warp_rows);
}
