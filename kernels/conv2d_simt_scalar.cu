// The float32 convolutions that take any number of channels and any alignment: see conv2d_simt.cuh. Few networks have them, so they are compiled at
// their first launch.
// gpucnn: compiled on first use

#include "conv2d_simt.cuh"

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_fprop_128x64_scalar(
    IN float* __restrict__ x, IN float* __restrict__ w, IN float* __restrict__ bias, OUT float* __restrict__ y, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    fprop<Tile128x64Scalar, ScalarSource<Tile128x64Scalar>, 1, 1>(
        x, w, bias, y, floats(workspace), counters, options, g);
}

extern "C" __global__ void __launch_bounds__(128, 3) conv2d_dgrad_128x64_scalar(
    IN float* __restrict__ dy, IN float* __restrict__ w, IN float* __restrict__ mask, OUT float* __restrict__ dx, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    dgrad<Tile128x64Scalar, ScalarSource<Tile128x64Scalar>, 1>(
        dy, w, mask, dx, floats(workspace), counters, options, g);
}

extern "C" __global__ void __launch_bounds__(64, 6) conv2d_wgrad_64x80_scalar(
    IN float* __restrict__ x, IN float* __restrict__ dy, OUT float* __restrict__ dw, OUT float* __restrict__ db, INOUT float4* workspace,
    INOUT unsigned* counters, ConvolutionOptions options, Conv2dGeometry g) {
    wgrad<Tile64x80Scalar, 1, 1, PlacedPixels>(x, dy, dw, db, floats(workspace), counters, options, g);
}
