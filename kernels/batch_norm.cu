// Batch normalisation of float32 (batch_norm.cuh), alone or with ReLU or GELU behind it.

#include "batch_norm.cuh"

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics(
    IN float* __restrict__ x, OUT float* __restrict__ partial, INOUT unsigned* __restrict__ counters,
    INOUT float* __restrict__ running_mean, INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches,
    OUT float* __restrict__ statistics, long long rows, int columns, long long rows_per_slab, float keep, float momentum) {
    column_statistics(
        x, partial, counters, running_mean, running_var, batches, statistics, rows, columns, rows_per_slab, keep, momentum);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_statistics_vec4(
    IN float4* __restrict__ x, OUT float* __restrict__ partial, INOUT unsigned* __restrict__ counters,
    INOUT float* __restrict__ running_mean, INOUT float* __restrict__ running_var, INOUT long long* __restrict__ batches,
    OUT float* __restrict__ statistics, long long rows, int columns, long long rows_per_slab, float keep, float momentum) {
    column_statistics(
        x, partial, counters, running_mean, running_var, batches, statistics, rows, columns, rows_per_slab, keep, momentum);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward(
    IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<Identity, Relu, Gelu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<Identity, Relu, Gelu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT float* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<Identity, Relu, Gelu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_forward_vec4(
    IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder, IN float* __restrict__ var,
    IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float4* __restrict__ y, long long rows, int columns, float eps,
    int activation) {
    forward_rows<Identity, Relu, Gelu>(x, mean, remainder, var, weight, bias, y, rows, columns, eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_sums_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, OUT float* __restrict__ partial,
    INOUT unsigned* __restrict__ counters, OUT float* __restrict__ dweight, OUT float* __restrict__ dbias,
    OUT float* __restrict__ coefficients, long long rows, int columns, long long rows_per_slab, float eps, int activation) {
    column_sums<Identity, Relu, Gelu>(
        dy, x, mean, remainder, var, weight, bias, partial, counters, dweight, dbias, coefficients, rows, columns, rows_per_slab,
        eps, activation);
}

extern "C" __global__ void __launch_bounds__(256) batch_norm_backward_vec4(
    IN float4* __restrict__ dy, IN float4* __restrict__ x, IN float* __restrict__ mean, IN float* __restrict__ remainder,
    IN float* __restrict__ var, IN float* __restrict__ weight, IN float* __restrict__ bias, IN float* __restrict__ coefficients,
    OUT float4* __restrict__ dx, long long rows, int columns, float eps, int activation) {
    backward_rows<Identity, Relu, Gelu>(dy, x, mean, remainder, var, weight, bias, coefficients, dx, rows, columns, eps, activation);
}
