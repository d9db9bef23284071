// Batch normalisation of float32 (batch_norm.cuh) with GELU by tanh or SiLU behind it.
//
// gpucnn: compiled on first use

#include "batch_norm.cuh"

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_smooth(
    IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<GeluTanh, Silu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_smooth(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<GeluTanh, Silu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_smooth(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT float* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<GeluTanh, Silu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_smooth_vec4(
    IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float4* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<GeluTanh, Silu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_smooth_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<GeluTanh, Silu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_smooth_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT float4* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<GeluTanh, Silu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}
