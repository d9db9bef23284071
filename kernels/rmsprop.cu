// RMSprop over all parameters of a network in one launch, PyTorch's rules:
//
//     g = gradient (minus gradient with `maximize`) + weight_decay * parameter
//     s = alpha * s + (1 - alpha) * g * g
//     centered: a += (1 - alpha) * (g - a), and s - a * a below, else s itself
//     d = g / (sqrt(s) + eps)
//     with momentum: buffer = momentum * buffer + d, and parameter -= lr * buffer, else parameter -= lr * d
//
// A kernel for each set of state arrays. Tables, launch and mapping: chunks.cuh.

#include "chunks.cuh"

struct RmspropOptions {
    float lr, alpha, one_minus_alpha, eps, momentum;
    int maximize;
};

// The gradient with its decay; s is brought up to date.
__device__ __forceinline__ float rmsprop_square(
    const RmspropOptions& options, float gradient, float weight_decay, float p, float& s) {
    const float g = fmaf(weight_decay, p, options.maximize ? -gradient : gradient);
    s = fmaf(options.alpha, s, options.one_minus_alpha * g * g);
    return g;
}

// s - a * a; a is brought up to date first.
__device__ __forceinline__ float rmsprop_center(const RmspropOptions& options, float g, float s, float& a) {
    a = blend(a, g, options.alpha, options.one_minus_alpha);
    return s - a * a;
}

extern "C" __global__ void __launch_bounds__(256) rmsprop_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ square_avgs, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays, int arrays, RmspropOptions options) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ square_avg = square_avgs[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            float s = square_avg[i];
            const float g = rmsprop_square(options, gradient[i], weight_decay, p, s);
            square_avg[i] = s;
            parameter[i] = fmaf(-options.lr, g / (sqrtf(s) + options.eps), p);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) rmsprop_momentum_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ square_avgs, INOUT float* const* __restrict__ momenta,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays,
    int arrays, RmspropOptions options) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ square_avg = square_avgs[part.array];
        float* __restrict__ buffer = momenta[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            float s = square_avg[i];
            const float g = rmsprop_square(options, gradient[i], weight_decay, p, s);
            const float b = fmaf(options.momentum, buffer[i], g / (sqrtf(s) + options.eps));
            square_avg[i] = s;
            buffer[i] = b;
            parameter[i] = fmaf(-options.lr, b, p);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) rmsprop_centered_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ square_avgs, INOUT float* const* __restrict__ grad_avgs,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays,
    int arrays, RmspropOptions options) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ square_avg = square_avgs[part.array];
        float* __restrict__ grad_avg = grad_avgs[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            float s = square_avg[i], a = grad_avg[i];
            const float g = rmsprop_square(options, gradient[i], weight_decay, p, s);
            const float variance = rmsprop_center(options, g, s, a);
            square_avg[i] = s;
            grad_avg[i] = a;
            parameter[i] = fmaf(-options.lr, g / (sqrtf(variance) + options.eps), p);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) rmsprop_centered_momentum_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ square_avgs, INOUT float* const* __restrict__ grad_avgs,
    INOUT float* const* __restrict__ momenta, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays, int arrays, RmspropOptions options) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ square_avg = square_avgs[part.array];
        float* __restrict__ grad_avg = grad_avgs[part.array];
        float* __restrict__ buffer = momenta[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            float s = square_avg[i], a = grad_avg[i];
            const float g = rmsprop_square(options, gradient[i], weight_decay, p, s);
            const float variance = rmsprop_center(options, g, s, a);
            const float b = fmaf(options.momentum, buffer[i], g / (sqrtf(variance) + options.eps));
            square_avg[i] = s;
            grad_avg[i] = a;
            buffer[i] = b;
            parameter[i] = fmaf(-options.lr, b, p);
        }
    }
}
