// Adagrad over all parameters of a network in one launch, PyTorch's rules:
//
//     g = gradient (minus gradient with `maximize`) + weight_decay * parameter
//     sum += g * g;  parameter -= lr * g / (sqrt(sum) + eps)
//
// lr is that of step t, full_lr / (1 + (t - 1) * lr_decay), worked out by the host; skipped steps do not count, so after the first of them it is
// worked out here. Each parameter has numbers of its own. What goes along: updates.cuh. Tables, launch and mapping: chunks.cuh.
// gpucnn: compiled on first use

#include "updates.cuh"

struct AdagradNumbers {
    float lr, weight_decay, eps, maximize, step, full_lr, lr_decay;
};

extern "C" __global__ void __launch_bounds__(256) adagrad_step(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ sums, INOUT float* const* __restrict__ averages,
    IN float* const* __restrict__ numbers, INOUT int* const* __restrict__ skipped, IN float* __restrict__ rate,
    IN float* __restrict__ inverse_scale, IN float* __restrict__ found_inf, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, int zero_gradients) {
    const Along along(inverse_scale, found_inf, rate, zero_gradients);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        const AdagradNumbers own = *reinterpret_cast<const AdagradNumbers*>(numbers[part.array]);
        const int before = along.skipped_before(skipped, part);
        const float later = own.step - 1.0f - static_cast<float>(before);
        const float lr = before == 0 ? own.lr : own.full_lr / fmaf(later, own.lr_decay, 1.0f);
        const bool maximize = own.maximize != 0.0f;
        Arrays<4> all(along, parameters[part.array], gradients[part.array], entry(averages, part.array));
        all.state(along, STATE, sums[part.array]);
        all.run(part, along, [&](float (&v)[4], float gradient) {
            const float p = v[PARAMETER];
            const float g = fmaf(own.weight_decay, p, maximize ? -gradient : gradient);
            const float s = fmaf(g, g, v[STATE]);
            v[STATE] = s;
            v[PARAMETER] = fmaf(-lr, g / (sqrtf(s) + own.eps), p);
        });
    }
}
