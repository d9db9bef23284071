// Max pooling of float32 (pool2d.cuh).
//
// The launch bounds name three or four blocks a multiprocessor because ptxas, left to itself, caps registers lower on some architectures, and spills.

#include "pool2d.cuh"

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT unsigned char* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward(
    IN float* __restrict__ dy, IN unsigned char* __restrict__ index, OUT float* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_forward_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, OUT uchar4* __restrict__ index, Pool2dGeometry g) {
    max_forward(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 4) max_pool2d_backward_vec4(
    IN float4* __restrict__ dy, IN uchar4* __restrict__ index, OUT float4* __restrict__ dx, Pool2dGeometry g) {
    max_backward(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_forward_2x2_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, OUT uchar4* __restrict__ index, Pool2dGeometry g) {
    max_forward_square<2>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_backward_2x2_vec4(
    IN float4* __restrict__ dy, IN uchar4* __restrict__ index, OUT float4* __restrict__ dx, Pool2dGeometry g) {
    max_backward_square<2>(dy, index, dx, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_forward_3x3_vec4(
    IN float4* __restrict__ x, OUT float4* __restrict__ y, OUT uchar4* __restrict__ index, Pool2dGeometry g) {
    max_forward_square<3>(x, y, index, g);
}

extern "C" __global__ void __launch_bounds__(256, 3) max_pool2d_backward_3x3_vec4(
    IN float4* __restrict__ dy, IN uchar4* __restrict__ index, OUT float4* __restrict__ dx, Pool2dGeometry g) {
    max_backward_square<3>(dy, index, dx, g);
}
