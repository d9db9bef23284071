// Local response normalisation of float32, windows of 9 channels (lrn.cuh): the lecture network's.

#include "lrn.cuh"

extern "C" __global__ void __launch_bounds__(256) lrn_forward_9_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    window_forward<float4, 4>(x, y, rows, alpha_over_size, k, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_9_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    window_backward<float4, 4>(dy, x, dx, rows, alpha_over_size, k, factor, mask, warp_rows);
}
