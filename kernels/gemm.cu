// The GEMM instances that linear layers need, for every way in which their operands may be stored: see gemm.cuh.

#include "gemm.cuh"

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_128x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, IN float4* __restrict__ mask, OUT float4* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile128x64, 4, false, false>(floats(a), floats(b), bias, floats(mask), floats(c), row_sums, floats(workspace), counters, shape);
}

extern "C" __global__ void __launch_bounds__(128, RESIDENT) gemm_nt_128x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, IN float4* __restrict__ mask, OUT float4* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile128x64, 4, false, true>(floats(a), floats(b), bias, floats(mask), floats(c), row_sums, floats(workspace), counters, shape);
}

extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_128x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, IN float4* __restrict__ mask, OUT float4* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile128x64, 4, true, false>(floats(a), floats(b), bias, floats(mask), floats(c), row_sums, floats(workspace), counters, shape);
}

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, IN float* __restrict__ mask, OUT float* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile64x64Scalar, 1, false, false>(a, b, bias, mask, c, row_sums, floats(workspace), counters, shape);
}

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nt_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, IN float* __restrict__ mask, OUT float* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile64x64Scalar, 1, false, true>(a, b, bias, mask, c, row_sums, floats(workspace), counters, shape);
}

extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, IN float* __restrict__ mask, OUT float* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile64x64Scalar, 1, true, false>(a, b, bias, mask, c, row_sums, floats(workspace), counters, shape);
}
