// Batch normalisation of float16 and bfloat16 (batch_norm.cuh), with any activation behind it; statistics, parameters and their
// gradients are float32.
//
// gpucnn: compiled on first use

#include "batch_norm.cuh"

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics_float16(
    IN float16* __restrict__ x, OUT float* __restrict__ partial, INOUT unsigned* __restrict__ counters,
    INOUT float* __restrict__ running_mean, INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches,
    OUT float* __restrict__ statistics, long long rows, int columns, long long rows_per_slab, float keep, float momentum) {
    column_statistics(
        x, partial, counters, running_mean, running_var, batches, statistics, rows, columns, rows_per_slab, keep, momentum);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_float16(
    IN float16* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float16* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_float16(
    IN float16* __restrict__ dy, IN float16* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<Identity, Relu, Gelu, GeluTanh, Silu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_float16(
    IN float16* __restrict__ dy, IN float16* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT float16* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics_float16x8(
    IN float16x8* __restrict__ x, OUT float* __restrict__ partial, INOUT unsigned* __restrict__ counters,
    INOUT float* __restrict__ running_mean, INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches,
    OUT float* __restrict__ statistics, long long rows, int columns, long long rows_per_slab, float keep, float momentum) {
    column_statistics(
        x, partial, counters, running_mean, running_var, batches, statistics, rows, columns, rows_per_slab, keep, momentum);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_float16x8(
    IN float16x8* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float16x8* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_float16x8(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<Identity, Relu, Gelu, GeluTanh, Silu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_float16x8(
    IN float16x8* __restrict__ dy, IN float16x8* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT float16x8* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics_bfloat16(
    IN bfloat16* __restrict__ x, OUT float* __restrict__ partial, INOUT unsigned* __restrict__ counters,
    INOUT float* __restrict__ running_mean, INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches,
    OUT float* __restrict__ statistics, long long rows, int columns, long long rows_per_slab, float keep, float momentum) {
    column_statistics(
        x, partial, counters, running_mean, running_var, batches, statistics, rows, columns, rows_per_slab, keep, momentum);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_bfloat16(
    IN bfloat16* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT bfloat16* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_bfloat16(
    IN bfloat16* __restrict__ dy, IN bfloat16* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<Identity, Relu, Gelu, GeluTanh, Silu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_bfloat16(
    IN bfloat16* __restrict__ dy, IN bfloat16* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT bfloat16* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics_bfloat16x8(
    IN bfloat16x8* __restrict__ x, OUT float* __restrict__ partial, INOUT unsigned* __restrict__ counters,
    INOUT float* __restrict__ running_mean, INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches,
    OUT float* __restrict__ statistics, long long rows, int columns, long long rows_per_slab, float keep, float momentum) {
    column_statistics(
        x, partial, counters, running_mean, running_var, batches, statistics, rows, columns, rows_per_slab, keep, momentum);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_bfloat16x8(
    IN bfloat16x8* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT bfloat16x8* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN bfloat16x8* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<Identity, Relu, Gelu, GeluTanh, Silu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_bfloat16x8(
    IN bfloat16x8* __restrict__ dy, IN bfloat16x8* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT bfloat16x8* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<Identity, Relu, Gelu, GeluTanh, Silu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}
