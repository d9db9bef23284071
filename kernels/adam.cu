// Adam and AdamW over all parameters of a network in one launch, PyTorch's rules:
//
//     g = gradient (minus gradient with `maximize`) + weight_decay * parameter
//     decoupled instead (AdamW): parameter *= 1 - lr * weight_decay
//     m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g * g
//     parameter -= step_size * m / (sqrt(v) * root_correction + eps)
//
// step_size = lr / (1 - beta1^t) and root_correction = 1 / sqrt(1 - beta2^t) come from the host, in step t; AMSGrad has
// the largest v so far in the root. Tables, launch and mapping: chunks.cuh.

#include "chunks.cuh"

struct AdamOptions {
    float lr, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, step_size, root_correction;
    int decoupled, maximize;
};

// The part of a step that both kernels share: m and v are brought up to date, p gets a decoupled decay.
__device__ __forceinline__ void adam_moments(
    const AdamOptions& options, float gradient, float weight_decay, float& p, float& m, float& v) {
    float g = options.maximize ? -gradient : gradient;
    if (options.decoupled) {
        p = fmaf(-options.lr * weight_decay, p, p);
    } else {
        g = fmaf(weight_decay, p, g);
    }
    m = blend(m, g, options.beta1, options.one_minus_beta1);
    v = fmaf(options.beta2, v, options.one_minus_beta2 * g * g);
}

__device__ __forceinline__ float adam_descend(const AdamOptions& options, float p, float m, float v) {
    return fmaf(-options.step_size, m / fmaf(sqrtf(v), options.root_correction, options.eps), p);
}

extern "C" __global__ void __launch_bounds__(256) adam_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ exp_avgs, INOUT float* const* __restrict__ exp_avg_sqs,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays,
    int arrays, AdamOptions options) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ exp_avg = exp_avgs[part.array];
        float* __restrict__ exp_avg_sq = exp_avg_sqs[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            float p = parameter[i], m = exp_avg[i], v = exp_avg_sq[i];
            adam_moments(options, gradient[i], weight_decay, p, m, v);
            exp_avg[i] = m;
            exp_avg_sq[i] = v;
            parameter[i] = adam_descend(options, p, m, v);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) adam_amsgrad_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ exp_avgs, INOUT float* const* __restrict__ exp_avg_sqs,
    INOUT float* const* __restrict__ max_exp_avg_sqs, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays, int arrays, AdamOptions options) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ exp_avg = exp_avgs[part.array];
        float* __restrict__ exp_avg_sq = exp_avg_sqs[part.array];
        float* __restrict__ max_exp_avg_sq = max_exp_avg_sqs[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            float p = parameter[i], m = exp_avg[i], v = exp_avg_sq[i];
            adam_moments(options, gradient[i], weight_decay, p, m, v);
            const float largest = v <= max_exp_avg_sq[i] ? max_exp_avg_sq[i] : v;  // NaN stays
            exp_avg[i] = m;
            exp_avg_sq[i] = v;
            max_exp_avg_sq[i] = largest;
            parameter[i] = adam_descend(options, p, m, largest);
        }
    }
}
