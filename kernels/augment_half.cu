// Batches in float16 and bfloat16: augment.cu's kernel, its float32 results rounded once.
// gpucnn: compiled on first use

#include "augment.cuh"

extern "C" __global__ void __launch_bounds__(AUGMENT_THREADS, 4) make_batch_float16(
    IN unsigned char* __restrict__ images, IN long long* __restrict__ labels, OUT float16* __restrict__ batch,
    OUT long long* __restrict__ batch_labels, IN long long* __restrict__ state, long long count, long long batch_size, long long batches,
    long long epoch, long long number, int width, unsigned long long seed, int staged, BatchRecipe recipe) {
    make_batch_image(
        images, labels, batch, batch_labels, state, count, batch_size, batches, epoch, number, width, seed, staged, recipe);
}

extern "C" __global__ void __launch_bounds__(AUGMENT_THREADS, 4) make_batch_bfloat16(
    IN unsigned char* __restrict__ images, IN long long* __restrict__ labels, OUT bfloat16* __restrict__ batch,
    OUT long long* __restrict__ batch_labels, IN long long* __restrict__ state, long long count, long long batch_size, long long batches,
    long long epoch, long long number, int width, unsigned long long seed, int staged, BatchRecipe recipe) {
    make_batch_image(
        images, labels, batch, batch_labels, state, count, batch_size, batches, epoch, number, width, seed, staged, recipe);
}
