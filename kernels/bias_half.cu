// The bias' gradient, float, of dy in a half type; mapping and launch: bias.cuh.
// gpucnn: compiled on first use

#include "bias.cuh"

extern "C" __global__ void __launch_bounds__(256) column_sums_float16(
    IN float16* __restrict__ x, OUT float* partial, INOUT unsigned* counters, OUT float* __restrict__ out, long long rows, int columns,
    long long rows_per_slab) {
    column_sums_of(x, partial, counters, out, rows, columns, rows_per_slab);
}

extern "C" __global__ void __launch_bounds__(256) column_sums_bfloat16(
    IN bfloat16* __restrict__ x, OUT float* partial, INOUT unsigned* counters, OUT float* __restrict__ out, long long rows, int columns,
    long long rows_per_slab) {
    column_sums_of(x, partial, counters, out, rows, columns, rows_per_slab);
}
