// Local response normalisation across channels, over rows (pixels) of channels-last memory: x (rows, C).
//
//     scale[c] = k + alpha / size * sum of x[j]^2 over j in [c - before, c + after]
//     y[c]     = x[c] * scale[c]^-beta
//     dx[c]    = dy[c] * scale[c]^-beta - 2 alpha beta / size * x[c] * sum of t[j] over j in [c - after, c + before]
//     t[j]     = dy[j] * x[j] * scale[j]^(-beta - 1)
//
// with before = size / 2 and after = (size - 1) / 2 (PyTorch's window), clipped to the row; Krizhevsky, Sutskever,
// Hinton, "ImageNet classification with deep convolutional neural networks", 2012. Sums run over the window from its
// lower end, one element each, so a result does not depend on the launch.
//
// lrn_forward   Blocks of 256, any grid; a thread owns one element and reads its window through the caches.
// lrn_backward  Blocks of 256; a block owns groups of `group` whole rows, and lays their t in shared memory first
//               (group * C floats), so that each power is computed once. group = 0: rows too long for shared memory;
//               t is computed again where it is needed.
// No alignment is asked for.

#include "common.cuh"

// scale^-beta; the usual beta of 3/4 takes two square roots and a division instead of a logarithm and an exponential.
__device__ __forceinline__ float inverse_power(float scale, float beta) {
    if (beta == 0.75f) {
        const float root = 1.0f / sqrtf(scale);
        return root * sqrtf(root);
    }
    return powf(scale, -beta);
}

extern "C" __global__ void __launch_bounds__(256) lrn_forward(
    IN float* __restrict__ x, OUT float* __restrict__ y, OUT float* __restrict__ scale, long long rows, int C,
    int before, int after, float alpha_over_size, float beta, float k) {
    const long long size = rows * C;
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) {
        // A 64-bit division would cost as much as the window.
        const int c = static_cast<int>(i < (1LL << 31) ? static_cast<unsigned>(i) % C : i % C);
        IN float* window = x + (i - c);
        const int last = after < C - 1 - c ? c + after : C - 1;
        float sum = 0.0f;
        for (int j = c > before ? c - before : 0; j <= last; ++j) sum = fmaf(window[j], window[j], sum);
        const float s = fmaf(alpha_over_size, sum, k);
        scale[i] = s;
        y[i] = x[i] * inverse_power(s, beta);
    }
}

__device__ __forceinline__ float lrn_term(float dy, float x, float scale, float beta) {
    return dy * x * (inverse_power(scale, beta) / scale);
}

extern "C" __global__ void __launch_bounds__(256) lrn_backward(
    IN float* __restrict__ dy, IN float* __restrict__ x, IN float* __restrict__ scale, OUT float* __restrict__ dx,
    long long rows, int C, int before, int after, float factor, float beta, int group) {
    extern __shared__ float terms[];
    const long long group_size = static_cast<long long>(group > 0 ? group : 1) * C;
    const long long size = rows * C;
    for (long long begin = blockIdx.x * group_size; begin < size; begin += gridDim.x * group_size) {
        const long long end = min(begin + group_size, size);
        if (group > 0) {
            for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) {
                terms[i - begin] = lrn_term(dy[i], x[i], scale[i], beta);
            }
            __syncthreads();
        }
        for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const int c = static_cast<int>(i - begin) % C;
            const long long row = i - c;
            const int last = before < C - 1 - c ? c + before : C - 1;
            float sum = 0.0f;
            for (int j = c > after ? c - after : 0; j <= last; ++j) {
                sum += group > 0 ? terms[row - begin + j] : lrn_term(dy[row + j], x[row + j], scale[row + j], beta);
            }
            dx[i] = dy[i] * inverse_power(scale[i], beta) - factor * x[i] * sum;
        }
        if (group > 0) __syncthreads();  // nobody still reads terms when the next group's are written
    }
}
