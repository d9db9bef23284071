// Local response normalisation of float16 and bfloat16 (lrn.cuh): windows of 9 channels, of 5, and any other.
//
// gpucnn: compiled on first use

#include "lrn.cuh"

extern "C" __global__ void __launch_bounds__(256) lrn_forward_9_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    window_forward<float16x8, 4>(x, y, rows, alpha_over_size, k, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_9_float16x8(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ x, OUT float16x8* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    window_backward<float16x8, 4>(dy, x, dx, rows, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward_9_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    window_forward<bfloat16x8, 4>(x, y, rows, alpha_over_size, k, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_9_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    window_backward<bfloat16x8, 4>(dy, x, dx, rows, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward_5_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    window_forward<float16x8, 2>(x, y, rows, alpha_over_size, k, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_5_float16x8(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ x, OUT float16x8* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    window_backward<float16x8, 2>(dy, x, dx, rows, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward_5_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, long long rows, float alpha_over_size, float k, int warp_rows) {
    window_forward<bfloat16x8, 2>(x, y, rows, alpha_over_size, k, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_5_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ dx, long long rows, float alpha_over_size, float k,
    float factor, int mask, int warp_rows) {
    window_backward<bfloat16x8, 2>(dy, x, dx, rows, alpha_over_size, k, factor, mask, warp_rows);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, long long rows, LrnWindow window) {
    general_forward(x, y, rows, window);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_float16(
    IN float16* __restrict__ dy, IN float16* __restrict__ x, OUT float16* __restrict__ dx, long long rows, LrnWindow window, float factor,
    int mask, int group) {
    general_backward(dy, x, dx, rows, window, factor, mask, group);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, long long rows, LrnWindow window) {
    general_forward(x, y, rows, window);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward_bfloat16(
    IN bfloat16* __restrict__ dy, IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ dx, long long rows, LrnWindow window, float factor,
    int mask, int group) {
    general_backward(dy, x, dx, rows, window, factor, mask, group);
}
