// Max and average pooling of float16 and bfloat16 (pool2d.cuh): compared as they are, added up in float32.
//
// The launch bounds name three or four blocks a multiprocessor because ptxas, left to itself, caps registers lower on some architectures, and spills.
//
// gpucnn: compiled on first use

#include "pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, OUT unsigned char* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_float16(
    IN float16* __restrict__ dy, IN unsigned char* __restrict__ index, OUT float16* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, OUT ucharx8* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_float16x8(
    IN float16x8* __restrict__ dy, IN ucharx8* __restrict__ index, OUT float16x8* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_wide_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, OUT int* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_wide_float16(
    IN float16* __restrict__ dy, IN int* __restrict__ index, OUT float16* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_forward_2x2_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, OUT ucharx8* __restrict__ index, Pool2dGeometry g) {
    max_forward_square<2>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_backward_2x2_float16x8(
    IN float16x8* __restrict__ dy, IN ucharx8* __restrict__ index, OUT float16x8* __restrict__ dx, Pool2dGeometry g) {
    max_backward_square<2>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_forward_3x3_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, OUT ucharx8* __restrict__ index, Pool2dGeometry g) {
    max_forward_square<3>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_backward_3x3_float16x8(
    IN float16x8* __restrict__ dy, IN ucharx8* __restrict__ index, OUT float16x8* __restrict__ dx, Pool2dGeometry g) {
    max_backward_square<3>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256) avg_pool2d_forward_global_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, int pixels, int columns, float share) {
    avg_forward_global(x, y, pixels, columns, share);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_forward_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_backward_float16(
    IN float16* __restrict__ dy, OUT float16* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward(dy, dx, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256) avg_pool2d_forward_global_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, int pixels, int columns, float share) {
    avg_forward_global(x, y, pixels, columns, share);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_forward_float16x8(
    IN float16x8* __restrict__ x, OUT float16x8* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_backward_float16x8(
    IN float16x8* __restrict__ dy, OUT float16x8* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward(dy, dx, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, OUT unsigned char* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_bfloat16(
    IN bfloat16* __restrict__ dy, IN unsigned char* __restrict__ index, OUT bfloat16* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, OUT ucharx8* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN ucharx8* __restrict__ index, OUT bfloat16x8* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_wide_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, OUT int* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_wide_bfloat16(
    IN bfloat16* __restrict__ dy, IN int* __restrict__ index, OUT bfloat16* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_forward_2x2_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, OUT ucharx8* __restrict__ index, Pool2dGeometry g) {
    max_forward_square<2>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_backward_2x2_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN ucharx8* __restrict__ index, OUT bfloat16x8* __restrict__ dx, Pool2dGeometry g) {
    max_backward_square<2>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_forward_3x3_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, OUT ucharx8* __restrict__ index, Pool2dGeometry g) {
    max_forward_square<3>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_backward_3x3_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN ucharx8* __restrict__ index, OUT bfloat16x8* __restrict__ dx, Pool2dGeometry g) {
    max_backward_square<3>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256) avg_pool2d_forward_global_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, int pixels, int columns, float share) {
    avg_forward_global(x, y, pixels, columns, share);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_forward_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_backward_bfloat16(
    IN bfloat16* __restrict__ dy, OUT bfloat16* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward(dy, dx, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256) avg_pool2d_forward_global_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, int pixels, int columns, float share) {
    avg_forward_global(x, y, pixels, columns, share);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_forward_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT bfloat16x8* __restrict__ y, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_forward(x, y, g, count_include_pad, divisor);
}

extern "C" __global__ void __launch_bounds__(256, 3) avg_pool2d_backward_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, OUT bfloat16x8* __restrict__ dx, Pool2dGeometry g, int count_include_pad, int divisor) {
    avg_backward(dy, dx, g, count_include_pad, divisor);
}
