// Adam and AdamW over all parameters of a network in one launch, PyTorch's rules:
//
//     g = gradient (minus gradient with `maximize`) + weight_decay * parameter
//     decoupled instead (AdamW): parameter *= 1 - lr * weight_decay
//     m += (1 - beta1) * (g - m);  v = beta2 * v + (1 - beta2) * g * g
//     parameter -= step_size * m / (sqrt(v) * root_correction + eps)
//
// step_size = lr / (1 - beta1^t) and root_correction = 1 / sqrt(1 - beta2^t) come from the host, in step t. Skipped steps do not count, and
// only the device knows of them: after the first, t is less and both are worked out here. A parameter with AMSGrad has an array of the largest v
// so far, which stands in the root. Each parameter has numbers of its own. What goes along: updates.cuh. Tables, launch, mapping: chunks.cuh.

#include "updates.cuh"

struct AdamNumbers {
    float lr, weight_decay, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, step_size, root_correction, decoupled, maximize, step,
        log_beta1, log_beta2;
};

// 1 - beta^t is -expm1(t log(beta)), which keeps its digits where beta^t is near 1.
__device__ __forceinline__ void adam_count(AdamNumbers& own, int skipped) {
    if (skipped == 0) return;
    const float t = own.step - static_cast<float>(skipped);
    own.step_size = own.lr / -expm1f(t * own.log_beta1);
    own.root_correction = 1.0f / sqrtf(-expm1f(t * own.log_beta2));
}

extern "C" __global__ void __launch_bounds__(256) adam_step(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ exp_avgs, INOUT float* const* __restrict__ exp_avg_sqs,
    INOUT float* const* __restrict__ max_exp_avg_sqs, INOUT float* const* __restrict__ averages,
    IN float* const* __restrict__ numbers, INOUT int* const* __restrict__ skipped, IN float* __restrict__ rate,
    IN float* __restrict__ inverse_scale, IN float* __restrict__ found_inf, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, int zero_gradients) {
    const Along along(inverse_scale, found_inf, rate, zero_gradients);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        AdamNumbers own = *reinterpret_cast<const AdamNumbers*>(numbers[part.array]);
        adam_count(own, along.skipped_before(skipped, part));
        float* largest = entry(max_exp_avg_sqs, part.array);
        const bool amsgrad = largest != nullptr, decoupled = own.decoupled != 0.0f, maximize = own.maximize != 0.0f;
        Arrays<6> all(along, parameters[part.array], gradients[part.array], entry(averages, part.array));
        all.state(along, STATE, exp_avgs[part.array]);
        all.state(along, STATE + 1, exp_avg_sqs[part.array]);
        all.state(along, STATE + 2, largest);
        all.run(part, along, [&](float (&a)[6], float gradient) {
            float p = a[PARAMETER], g = maximize ? -gradient : gradient;
            if (decoupled) {
                p = fmaf(-own.lr * own.weight_decay, p, p);
            } else {
                g = fmaf(own.weight_decay, p, g);
            }
            const float m = blend(a[STATE], g, own.beta1, own.one_minus_beta1);
            const float v = fmaf(own.beta2, a[STATE + 1], own.one_minus_beta2 * g * g);
            float root = v;
            if (amsgrad) a[STATE + 2] = root = v <= a[STATE + 2] ? a[STATE + 2] : v;  // NaN stays
            a[STATE] = m;
            a[STATE + 1] = v;
            a[PARAMETER] = fmaf(-own.step_size, m / fmaf(sqrtf(root), own.root_correction, own.eps), p);
        });
    }
}
