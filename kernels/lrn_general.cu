// Local response normalisation of float32 (lrn.cuh): windows of 5 channels, and any other.
//
// gpucnn: compiled on first use

#include "lrn.cuh"

extern "C" __global__ void __launch_bounds__(256) lrn_forward_5_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    window_forward<float4, 2>(x, y, rows, alpha_over_size, k, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_5_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, OUT float4* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    window_backward<float4, 2>(dy, x, dx, rows, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long rows, LrnWindow window) {
    general_forward(x, y, rows, window);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, OUT float* __restrict__ dx, long long rows, LrnWindow window, float factor,
    int mask, int group) {
    general_backward(dy, x, dx, rows, window, factor, mask, group);
}
