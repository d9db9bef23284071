// A training batch out of a uint8 data set that lies on the device: chosen, cropped, flipped, jittered, standardised or normalised, with
// a hole cut out, in one pass. The formulas and the order of their roundings are those of gpucnn/data/transforms.py and augment.py, so
// that the batch has the same bits as the host's.
//
// Launch: a block of 256 threads an image of the batch, that is gridDim.x images. Warp 0 draws the image's numbers: lanes 0 to 2 the
// round keys of the epoch's permutation, lanes 3 and 4 the image's uniforms, and thread 0 makes of them which image it is and where
// its crop begins. Then a warp owns rows and a lane every 32nd element of a row. No alignment is asked for.
//
// What a small batch costs is latency, so the whole stored image is fetched at once: `staged` bytes of dynamic shared memory hold it,
// 16 bytes a thread where it begins at a multiple of 16, and all else reads from there. Images for which staged is 0, because they are
// large, are read where they lie.
//
// A standardised or jittered image is read twice: sums of x and x^2 first, which are whole numbers and so exact in any order; then a few
// float64 operations by thread c for channel c; then y = a x + b, a multiplication and an addition.

#pragma once

#include "common.cuh"
#include "half.cuh"
#include "philox.cuh"
#include "warp.cuh"

constexpr int AUGMENT_THREADS = 256;
constexpr int AUGMENT_WARPS = AUGMENT_THREADS / 32;
constexpr unsigned SHUFFLE_STREAM = 2, AUGMENT_STREAM = 3, FLIP_STREAM = 8;  // gpucnn.random.Purpose
constexpr int KEY_BLOCKS = FEISTEL_ROUNDS / 4;  // Philox blocks that hold the permutation's round keys
constexpr int DRAW_BLOCKS = 2;                  // and those that hold an image's uniforms: 8 words at an even multiple of 4, or 5 anywhere
constexpr int FLIP_RANDOM = 1, FLIP_ALTERNATING = 2;

// What is done to an image, in the order of BatchRecipe in gpucnn/backends/cuda/augment.py.
//
// The view of a stored image (H, W, C) has `height` x `width` pixels, of which (r, s) is the stored (r + top, s + left), or 0 where there
// is none. Around it there is a border of `border` pixels by reflection, and the P x Q pixels of the output are cut out of that. Colour
// becomes grey, and grey colour, where C differs from the output's channels.
struct BatchRecipe {
    int H, W, C;
    int height, width, top, left;
    int border, P, Q, channels;
    int draws;                  // uniforms an image takes: 0 (nothing is random), 5 or 8
    int place_draw, flip_draw;  // which of them are the crop's top (left is the next) and the coin
    int flip;                   // 0, FLIP_RANDOM or FLIP_ALTERNATING
    int mirror_left;            // whether the crop of a mirrored image is counted from the right
    int cutout;                 // side of the hole, whose place is draws 5 and 6
    int standardize;            // y = (z - mean) / max(std, 1 / sqrt(size)), else y = (z - mean0..) / std0..
    int jitter;                 // brightness and contrast: draws 3 and 4
    double brightness;          // shift = (2 u - 1) brightness
    double contrast_low, contrast_range;
    double mean0, mean1, mean2, std0, std1, std2;
};

// What thread 0 found out about the block's image.
struct Placed {
    long long index;
    int top, left, flip, hole_top, hole_left;
    double brightness, contrast;  // uniforms
};

__device__ __forceinline__ double uniform_of(unsigned word) {
    return static_cast<double>(philox_to_uniform(word));
}

// A uniform as one of `count` whole numbers.
__device__ __forceinline__ int place_of(unsigned word, int count) {
    return static_cast<int>(uniform_of(word) * count);
}

// Of stored image `index` channel c of the output's pixel (p, q).
template <int K>
__device__ __forceinline__ unsigned augmented_pixel(
    IN unsigned char* __restrict__ image, const BatchRecipe& recipe, const Placed& placed, int p, int q, int c) {
    int r = placed.top + p - recipe.border;
    int s = placed.left + (placed.flip ? recipe.Q - 1 - q : q) - recipe.border;
    r = r < 0 ? -r : (r >= recipe.height ? 2 * (recipe.height - 1) - r : r);
    s = s < 0 ? -s : (s >= recipe.width ? 2 * (recipe.width - 1) - s : s);
    r += recipe.top;
    s += recipe.left;
    if (static_cast<unsigned>(r) >= static_cast<unsigned>(recipe.H) || static_cast<unsigned>(s) >= static_cast<unsigned>(recipe.W)) return 0;
    IN unsigned char* pixel = image + (static_cast<long long>(r) * recipe.W + s) * recipe.C;
    if (K == 1 && recipe.C == 3) return (77u * pixel[0] + 150u * pixel[1] + 29u * pixel[2]) >> 8;
    return pixel[recipe.C == K ? c : 0];
}

// Thread 0: image n of the batch. `words` are the Philox blocks that warp 0 drew.
__device__ __forceinline__ Placed place_image(
    const unsigned (&words)[4 * (KEY_BLOCKS + DRAW_BLOCKS)], const BatchRecipe& recipe, long long position, long long images, int width,
    unsigned long long seed, long long epoch) {
    Placed placed = {};
    placed.index = position < images ? position : images - 1;  // beyond the data the permutation would not come to an end
    if (width > 0) {
        unsigned round_keys[FEISTEL_ROUNDS];
#pragma unroll
        for (int i = 0; i < FEISTEL_ROUNDS; ++i) round_keys[i] = words[i];
        placed.index = static_cast<long long>(philox_permute(placed.index, images, width, round_keys));
    }
    if (recipe.draws == 0) return placed;
    // Image n's words begin at draws n = 4 (first block) + n % 4 for five draws, and at a block for eight.
    const unsigned* draws = words + FEISTEL_ROUNDS + (recipe.draws % 4) * (blockIdx.x % 4);
    placed.top = place_of(draws[recipe.place_draw], recipe.height + 2 * recipe.border - recipe.P + 1);
    placed.left = place_of(draws[recipe.place_draw + 1], recipe.width + 2 * recipe.border - recipe.Q + 1);
    if (recipe.flip == FLIP_RANDOM) {
        placed.flip = uniform_of(draws[recipe.flip_draw]) < 0.5;
    } else if (recipe.flip == FLIP_ALTERNATING) {
        placed.flip = (philox_block(0, seed, placed.index, FLIP_STREAM).w[0] < 0x80000000u) != (epoch % 2 == 1);
    }
    if (placed.flip && recipe.mirror_left) placed.left = 2 * recipe.border - placed.left;
    placed.brightness = uniform_of(draws[3]);
    placed.contrast = uniform_of(draws[4]);
    if (recipe.cutout > 0) {
        placed.hole_top = place_of(draws[5], recipe.P - recipe.cutout + 1);
        placed.hole_left = place_of(draws[6], recipe.Q - recipe.cutout + 1);
    }
    return placed;
}

// Sums of x and of x^2 by channel over the warp's rows, as sums[2 c] and sums[2 c + 1] in shared memory.
template <int K>
__device__ __forceinline__ void sum_rows(
    IN unsigned char* __restrict__ image, const BatchRecipe& recipe, const Placed& placed, unsigned long long (&sums)[2 * K]) {
    unsigned sum[K] = {}, square[K] = {};  // a lane has few enough pixels (gpucnn/backends/cuda/augment.py, MAX_PIXELS)
#pragma unroll 1  // code that is fetched once is as dear as what it saves
    for (int p = threadIdx.x / 32; p < recipe.P; p += AUGMENT_WARPS) {
#pragma unroll 1
        for (int q = threadIdx.x % 32; q < recipe.Q; q += 32) {
#pragma unroll
            for (int c = 0; c < K; ++c) {
                const unsigned x = augmented_pixel<K>(image, recipe, placed, p, q, c);
                sum[c] += x;
                square[c] += x * x;
            }
        }
    }
#pragma unroll
    for (int c = 0; c < K; ++c) {
        const unsigned long long both[2] = {warp_sum<unsigned long long>(sum[c]), warp_sum<unsigned long long>(square[c])};
        if (threadIdx.x % 32 == 0) {
            sums[2 * c] = both[0];
            sums[2 * c + 1] = both[1];
        }
    }
}

// Of channel c, from whole sums: the mean of x and its variance. A product that is added to goes through __dmul_rn, which is never fused.
template <int K>
__device__ __forceinline__ void channel_moments(
    const unsigned long long (&partial)[AUGMENT_WARPS][2 * K], int c, double pixels, double& mean, double& variance) {
    unsigned long long sum = 0, square = 0;
    for (int w = 0; w < AUGMENT_WARPS; ++w) {
        sum += partial[w][2 * c];
        square += partial[w][2 * c + 1];
    }
    const double s = static_cast<double>(sum);
    mean = s / pixels;
    variance = (static_cast<double>(square) - __dmul_rn(s, s) / pixels) / pixels;
}

// The a and b of channel c under standardisation; means (of x + shift) and variances of all channels.
template <int K>
__device__ __forceinline__ void standardizing(
    const double (&means)[K], const double (&variances)[K], double pixels, double shift, double factor, int c, float& a, float& b) {
    double mean = means[0];
    for (int k = 1; k < K; ++k) mean += means[k];
    mean /= K;
    double variance = 0.0;
    for (int k = 0; k < K; ++k) {
        const double off = means[k] - mean;
        variance += __dmul_rn(__dmul_rn(factor, factor), variances[k]) + __dmul_rn(off, off);
    }
    variance /= K;
    const double least = 1.0 / sqrt(pixels * K), spread = sqrt(variance > 0.0 ? variance : 0.0);
    const double divisor = spread > least ? spread : least;
    a = static_cast<float>(factor / divisor);
    b = static_cast<float>((__dmul_rn(shift - means[c], factor) + means[c] - mean) / divisor);
}

// The a and b of channel c under normalisation with the data set's mean and deviation.
template <int K>
__device__ __forceinline__ void normalizing(
    const unsigned long long (&partial)[AUGMENT_WARPS][2 * K], const BatchRecipe& recipe, double shift, double factor, int c, float& a,
    float& b) {
    double own = 0.0;
    if (recipe.jitter) {
        unsigned long long sum = 0;
#pragma unroll 1
        for (int w = 0; w < AUGMENT_WARPS; ++w) {
            for (int k = 0; k < K; ++k) sum += partial[w][2 * k];
        }
        own = static_cast<double>(sum) / (255.0 * recipe.P * recipe.Q * K);
    }
    const double mean = c == 0 ? recipe.mean0 : (c == 1 ? recipe.mean1 : recipe.mean2);
    const double divisor = c == 0 ? recipe.std0 : (c == 1 ? recipe.std1 : recipe.std2);
    a = static_cast<float>(factor / (255.0 * divisor));
    b = static_cast<float>((__dmul_rn(own, 1.0 - factor) + shift - mean) / divisor);
}

// The block's image, for an output of K channels. `placed` lies in shared memory.
template <int K, typename T>
__device__ __forceinline__ void augment_image(
    IN unsigned char* __restrict__ image, T* __restrict__ out, const BatchRecipe& recipe, const Placed& placed) {
    __shared__ unsigned long long partial[AUGMENT_WARPS][2 * K];
    __shared__ double means[K], variances[K];
    __shared__ float slope[K], intercept[K];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (recipe.standardize || recipe.jitter) {
        sum_rows<K>(image, recipe, placed, partial[warp]);
        __syncthreads();
    }
    if (threadIdx.x < 32) {
        double shift = 0.0, factor = 1.0;
        if (recipe.jitter) {
            shift = __dmul_rn(2.0 * placed.brightness - 1.0, recipe.brightness);
            // a range given by its lower end and its width, or one about 1 by half its width
            factor = recipe.standardize ? recipe.contrast_low + __dmul_rn(placed.contrast, recipe.contrast_range)
                                        : 1.0 + __dmul_rn(2.0 * placed.contrast - 1.0, recipe.contrast_range);
        }
        if (recipe.standardize) {
            const double pixels = static_cast<double>(recipe.P) * recipe.Q;
            if (lane < K) {
                double mean;
                channel_moments<K>(partial, lane, pixels, mean, variances[lane]);
                means[lane] = mean + shift;
            }
            __syncwarp();
            if (lane < K) standardizing<K>(means, variances, pixels, shift, factor, lane, slope[lane], intercept[lane]);
        } else if (lane < K) {
            normalizing<K>(partial, recipe, shift, factor, lane, slope[lane], intercept[lane]);
        }
    }
    __syncthreads();
#pragma unroll 1
    for (int p = warp; p < recipe.P; p += AUGMENT_WARPS) {
        const bool hole_row = p >= placed.hole_top && p < placed.hole_top + recipe.cutout;
        T* row = out + static_cast<long long>(p) * recipe.Q * K;
#pragma unroll 2
        for (int e = lane; e < recipe.Q * K; e += 32) {
            const int q = e / K, c = e - q * K;
            const float x = static_cast<float>(augmented_pixel<K>(image, recipe, placed, p, q, c));
            const bool hole = hole_row && q >= placed.hole_left && q < placed.hole_left + recipe.cutout;
            row[e] = from_float<T>(hole ? 0.0f : __fadd_rn(__fmul_rn(x, slope[c]), intercept[c]));
        }
    }
}

extern __shared__ uint4 staged_image[];

__device__ __forceinline__ void stage_image(IN unsigned char* __restrict__ image, int size) {
    if (size % 16 == 0 && reinterpret_cast<unsigned long long>(image) % 16 == 0) {
#pragma unroll 1
        for (int i = threadIdx.x; i < size / 16; i += AUGMENT_THREADS) staged_image[i] = reinterpret_cast<const uint4*>(image)[i];
    } else {
#pragma unroll 2
        for (int i = threadIdx.x; i < size; i += AUGMENT_THREADS) reinterpret_cast<unsigned char*>(staged_image)[i] = image[i];
    }
}

// The body of make_batch: image blockIdx.x of batch (epoch, number), where `state` is null, else of batch (state[0], state[1]).
template <typename T>
__device__ __forceinline__ void make_batch_image(
    IN unsigned char* __restrict__ images, IN long long* __restrict__ labels, T* __restrict__ batch, long long* __restrict__ batch_labels,
    IN long long* __restrict__ state, long long count, long long batch_size, long long batches, long long epoch, long long number,
    int width, unsigned long long seed, int staged, const BatchRecipe& recipe) {
    __shared__ unsigned words[4 * (KEY_BLOCKS + DRAW_BLOCKS)];
    __shared__ Placed shared_placed;
    if (state != nullptr) {
        epoch = state[0];
        number = state[1];
    }
    const long long n = blockIdx.x;
    if (threadIdx.x < 32) {
        if (threadIdx.x < KEY_BLOCKS + DRAW_BLOCKS) {
            const bool key = threadIdx.x < KEY_BLOCKS;
            const PhiloxWords drawn =
                key ? philox_block(threadIdx.x, seed, epoch, SHUFFLE_STREAM)
                    : philox_block(n * recipe.draws / 4 + threadIdx.x - KEY_BLOCKS, seed, epoch * batches + number, AUGMENT_STREAM);
#pragma unroll
            for (int j = 0; j < 4; ++j) words[4 * threadIdx.x + j] = drawn.w[j];
        }
        __syncwarp();
        if (threadIdx.x == 0) {
            const Placed found = place_image(words, recipe, number * batch_size + n, count, width, seed, epoch);
            batch_labels[n] = labels[found.index];
            shared_placed = found;
        }
    }
    __syncthreads();
    const int size = recipe.H * recipe.W * recipe.C;
    IN unsigned char* image = images + shared_placed.index * size;
    if (staged > 0) {
        stage_image(image, size);
        __syncthreads();
        image = reinterpret_cast<const unsigned char*>(staged_image);
    }
    T* out = batch + n * recipe.P * recipe.Q * recipe.channels;
    if (recipe.channels == 1) {
        augment_image<1>(image, out, recipe, shared_placed);
    } else {
        augment_image<3>(image, out, recipe, shared_placed);
    }
}
