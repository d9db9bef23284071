// Training and evaluation batches made on the device (augment.cuh says how): batch (gridDim.x, P, Q, channels) and labels (gridDim.x,)
// of batch `number` of epoch `epoch`, out of images (count, H, W, C) and labels (count,).
//
// state: null, or epoch and number in its first two words, so that a captured launch makes another batch at each replay.
// width: bits of the Feistel network that shuffles 0 .. count-1, 0 for a data set in its own order.
// staged: bytes of dynamic shared memory, which hold a whole stored image, or 0.
// batches: of an epoch; the augmentation's stream is (seed, epoch * batches + number, AUGMENT).
//
// The float16 and bfloat16 instances stand in augment_half.cu.

#include "augment.cuh"

extern "C" __global__ void __launch_bounds__(AUGMENT_THREADS, 4) make_batch(
    IN unsigned char* __restrict__ images, IN long long* __restrict__ labels, OUT float* __restrict__ batch,
    OUT long long* __restrict__ batch_labels, IN long long* __restrict__ state, long long count, long long batch_size, long long batches,
    long long epoch, long long number, int width, unsigned long long seed, int staged, BatchRecipe recipe) {
    make_batch_image(
        images, labels, batch, batch_labels, state, count, batch_size, batches, epoch, number, width, seed, staged, recipe);
}
