// The GEMM instances with tiles of 64 x 64, for every way in which the operands may be stored: see gemm.cuh.

#include "gemm.cuh"

extern "C" __global__ void __launch_bounds__(128, 4) gemm_nn_64x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, OUT float4* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64, 4, false, false>(floats(a), floats(b), bias, floats(c), M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_nn_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, OUT float* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64Scalar, 1, false, false>(a, b, bias, c, M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_nt_64x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, OUT float4* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64, 4, false, true>(floats(a), floats(b), bias, floats(c), M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_nt_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, OUT float* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64Scalar, 1, false, true>(a, b, bias, c, M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_tn_64x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, OUT float4* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64, 4, true, false>(floats(a), floats(b), bias, floats(c), M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_tn_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, OUT float* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64Scalar, 1, true, false>(a, b, bias, c, M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 4) gemm_tt_64x64_scalar(
    IN float* __restrict__ a, IN float* __restrict__ b, IN float* __restrict__ bias, OUT float* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile64x64Scalar, 1, true, true>(a, b, bias, c, M, N, K, batch, k_per_split);
}
