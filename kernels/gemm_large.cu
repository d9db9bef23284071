// The GEMM instances with tiles of 128 x 64, for products with so many tiles that these are enough to fill a GPU: see gemm.cuh.
// Few networks have them, so they are compiled at their first launch.
// gpucnn: compiled on first use

#include "gemm.cuh"

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nn_128x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, OUT float4* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile128x64, 4, false, false>(floats(a), floats(b), bias, floats(c), M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 3) gemm_nt_128x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, OUT float4* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile128x64, 4, false, true>(floats(a), floats(b), bias, floats(c), M, N, K, batch, k_per_split);
}

extern "C" __global__ void __launch_bounds__(128, 3) gemm_tn_128x64_vec4(
    IN float4* __restrict__ a, IN float4* __restrict__ b, IN float* __restrict__ bias, OUT float4* __restrict__ c, int M, int N, int K,
    int batch, int k_per_split) {
    gemm<Tile128x64, 4, true, false>(floats(a), floats(b), bias, floats(c), M, N, K, batch, k_per_split);
}
