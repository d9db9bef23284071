// Elementwise work of a training step that no other kernel could take along, in float: sums of gradients and residual branches, products
// with a number, flattening and its way back. Mapping and launch: elementwise.cuh.

#include "elementwise.cuh"

extern "C" __global__ void __launch_bounds__(256) add_float(
    IN float* __restrict__ x, IN float* __restrict__ y, OUT float* __restrict__ z, long long vectors, int relu) {
    add_vectors(x, y, z, vectors, relu);
}

extern "C" __global__ void __launch_bounds__(256) add_float_vec(
    IN float4* __restrict__ x, IN float4* __restrict__ y, OUT float4* __restrict__ z, long long vectors, int relu) {
    add_vectors(x, y, z, vectors, relu);
}

extern "C" __global__ void __launch_bounds__(256) scale_float_float(
    IN float* __restrict__ x, OUT float* __restrict__ y, IN float* __restrict__ by, float factor, long long vectors) {
    scale_vectors(x, y, by, factor, vectors);
}

extern "C" __global__ void __launch_bounds__(256) transpose_float(
    IN float* __restrict__ x, OUT float* __restrict__ y, int rows, int columns) {
    __shared__ float tile[TURN][TURN + 1];
    transpose_tile(x, y, rows, columns, tile);
}

extern "C" __global__ void __launch_bounds__(256) resize_rows_float(
    IN float* __restrict__ x, OUT float* __restrict__ y, long long rows, int from, int to) {
    resize_rows_of(x, y, rows, from, to);
}
