// RMSprop over all parameters of a network in one launch, PyTorch's rules:
//
//     g = gradient (minus gradient with `maximize`) + weight_decay * parameter
//     s = alpha * s + (1 - alpha) * g * g
//     centered: a += (1 - alpha) * (g - a), and s - a * a below, else s itself
//     d = g / (sqrt(s) + eps)
//     with momentum: buffer = momentum * buffer + d, and parameter -= lr * buffer, else parameter -= lr * d
//
// A parameter that is centered has an array `grad_avg`, one with momentum a buffer. Each has numbers of its own. What goes along: updates.cuh.
// Tables, launch and mapping: chunks.cuh.
// gpucnn: compiled on first use

#include "updates.cuh"

struct RmspropNumbers {
    float lr, weight_decay, alpha, one_minus_alpha, eps, momentum, maximize;
};

extern "C" __global__ void __launch_bounds__(256) rmsprop_step(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ square_avgs, INOUT float* const* __restrict__ grad_avgs,
    INOUT float* const* __restrict__ momenta, INOUT float* const* __restrict__ averages,
    IN float* const* __restrict__ numbers, INOUT int* const* __restrict__ skipped, IN float* __restrict__ rate,
    IN float* __restrict__ inverse_scale, IN float* __restrict__ found_inf, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, int zero_gradients) {
    const Along along(inverse_scale, found_inf, rate, zero_gradients);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        const RmspropNumbers own = *reinterpret_cast<const RmspropNumbers*>(numbers[part.array]);
        along.skipped_before(skipped, part);
        float *mean = entry(grad_avgs, part.array), *buffer = entry(momenta, part.array);
        const bool centered = mean != nullptr, has_momentum = buffer != nullptr, maximize = own.maximize != 0.0f;
        Arrays<6> all(along, parameters[part.array], gradients[part.array], entry(averages, part.array));
        all.state(along, STATE, square_avgs[part.array]);
        all.state(along, STATE + 1, mean);
        all.state(along, STATE + 2, buffer);
        all.run(part, along, [&](float (&v)[6], float gradient) {
            const float p = v[PARAMETER];
            const float g = fmaf(own.weight_decay, p, maximize ? -gradient : gradient);
            const float s = fmaf(own.alpha, v[STATE], own.one_minus_alpha * g * g);
            v[STATE] = s;
            float variance = s;
            if (centered) {
                const float a = blend(v[STATE + 1], g, own.alpha, own.one_minus_alpha);
                v[STATE + 1] = a;
                variance = s - a * a;
            }
            float d = g / (sqrtf(variance) + own.eps);
            if (has_momentum) v[STATE + 2] = d = fmaf(own.momentum, v[STATE + 2], d);
            v[PARAMETER] = fmaf(-own.lr, d, p);
        });
    }
}
