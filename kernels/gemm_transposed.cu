// The product of two matrices that are both stored transposed: see gemm.cuh. No layer has it, so it is compiled at its first launch.
// gpucnn: compiled on first use

#include "gemm.cuh"

extern "C" __global__ void __launch_bounds__(128, 3) gemm_tt_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, IN float* __restrict__ mask, OUT float* __restrict__ c,
    OUT float* __restrict__ row_sums, INOUT float4* workspace, INOUT unsigned* counters, GemmShape shape) {
    gemm<Tile64x64Scalar, 1, true, true>(a, b, bias, mask, c, row_sums, floats(workspace), counters, shape);
}
