// elementwise.cu for float16 and bfloat16: float inside, rounded once to the storage type.
// gpucnn: compiled on first use

#include "elementwise.cuh"

extern "C" __global__ void __launch_bounds__(256) add_float16(
    IN float16* __restrict__ x, IN float16* __restrict__ y, OUT float16* __restrict__ z, long long vectors, int relu) {
    add_vectors(x, y, z, vectors, relu);
}

extern "C" __global__ void __launch_bounds__(256) add_float16_vec(
    IN float16x8* __restrict__ x, IN float16x8* __restrict__ y, OUT float16x8* __restrict__ z, long long vectors, int relu) {
    add_vectors(x, y, z, vectors, relu);
}

extern "C" __global__ void __launch_bounds__(256) scale_float16_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, IN float* __restrict__ by, float factor, long long vectors) {
    scale_vectors(x, y, by, factor, vectors);
}

extern "C" __global__ void __launch_bounds__(256) scale_float_float16(
    IN float* __restrict__ x, OUT float16* __restrict__ y, IN float* __restrict__ by, float factor, long long vectors) {
    scale_vectors(x, y, by, factor, vectors);
}

extern "C" __global__ void __launch_bounds__(256) transpose_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, int rows, int columns) {
    __shared__ float16 tile[TURN][TURN + 1];
    transpose_tile(x, y, rows, columns, tile);
}

extern "C" __global__ void __launch_bounds__(256) resize_rows_float16(
    IN float16* __restrict__ x, OUT float16* __restrict__ y, long long rows, int from, int to) {
    resize_rows_of(x, y, rows, from, to);
}

extern "C" __global__ void __launch_bounds__(256) add_bfloat16(
    IN bfloat16* __restrict__ x, IN bfloat16* __restrict__ y, OUT bfloat16* __restrict__ z, long long vectors, int relu) {
    add_vectors(x, y, z, vectors, relu);
}

extern "C" __global__ void __launch_bounds__(256) add_bfloat16_vec(
    IN bfloat16x8* __restrict__ x, IN bfloat16x8* __restrict__ y, OUT bfloat16x8* __restrict__ z, long long vectors, int relu) {
    add_vectors(x, y, z, vectors, relu);
}

extern "C" __global__ void __launch_bounds__(256) scale_bfloat16_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, IN float* __restrict__ by, float factor, long long vectors) {
    scale_vectors(x, y, by, factor, vectors);
}

extern "C" __global__ void __launch_bounds__(256) scale_float_bfloat16(
    IN float* __restrict__ x, OUT bfloat16* __restrict__ y, IN float* __restrict__ by, float factor, long long vectors) {
    scale_vectors(x, y, by, factor, vectors);
}

extern "C" __global__ void __launch_bounds__(256) transpose_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, int rows, int columns) {
    __shared__ bfloat16 tile[TURN][TURN + 1];
    transpose_tile(x, y, rows, columns, tile);
}

extern "C" __global__ void __launch_bounds__(256) resize_rows_bfloat16(
    IN bfloat16* __restrict__ x, OUT bfloat16* __restrict__ y, long long rows, int from, int to) {
    resize_rows_of(x, y, rows, from, to);
}
