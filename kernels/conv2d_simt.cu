// The float32 convolutions that most networks need: see conv2d_simt.cuh.

#include "conv2d_simt.cuh"

extern "C" __global__ void __launch_bounds__(128, FPROP_RESIDENT) conv2d_fprop_128x64_vec4(
    IN float4* __restrict__ x, IN float4* __restrict__ w, IN float* __restrict__ bias, OUT float4* __restrict__ y, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    fprop<Tile128x64, WindowSource<Tile128x64>, 4, 4>(
        floats(x), floats(w), bias, floats(y), floats(workspace), counters, options, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_fprop_128x64_few(
    IN float* __restrict__ x, IN float* __restrict__ w, IN float* __restrict__ bias, OUT float4* __restrict__ y, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    fprop<Tile128x64Scalar, FewSource<Tile128x64Scalar>, 1, 4>(
        x, w, bias, floats(y), floats(workspace), counters, options, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_dgrad_128x64_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ w, IN float4* __restrict__ mask, OUT float4* __restrict__ dx, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    dgrad<Tile128x64, WindowSource<Tile128x64>, 4>(
        floats(dy), floats(w), floats(mask), floats(dx), floats(workspace), counters, options, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_wgrad_64x128_vec4(
    IN float4* __restrict__ x, IN float4* __restrict__ dy, OUT float4* __restrict__ dw, OUT float* __restrict__ db, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    wgrad<Tile64x128, 4, 4, MaskedPixels>(floats(x), floats(dy), floats(dw), db, floats(workspace), counters, options, g);
}

extern "C" __global__ void __launch_bounds__(64, 6) conv2d_wgrad_64x80_few(
    IN float* __restrict__ x, IN float4* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    wgrad<Tile64x80Scalar, 1, 4, MaskedPixels>(x, floats(dy), dw, db, floats(workspace), counters, options, g);
}
