// SGD over all parameters of a network in one launch, PyTorch's rules:
//
//     d = gradient + weight_decay * parameter
//     with momentum:  buffer = d at the first step, else momentum * buffer + (1 - dampening) * d
//                     d = d + momentum * buffer (Nesterov), else buffer
//     parameter -= lr * d
//
// `maximize` turns the gradient's sign. Each parameter has numbers of its own, so one launch serves groups and optimizers that differ in them;
// one without momentum has no buffer. What goes along: updates.cuh. Tables, launch and mapping: chunks.cuh.
//
// The moving average of weights and Lookahead, for parameters whose optimizer does not take them along, stand here too.

#include "updates.cuh"

struct SgdNumbers {
    float lr, weight_decay, momentum, one_minus_dampening, nesterov, begun, maximize;
};

extern "C" __global__ void __launch_bounds__(256) sgd_step(
    INOUT float* const* __restrict__ parameters, INOUT float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ momenta, INOUT float* const* __restrict__ averages,
    IN float* const* __restrict__ numbers, INOUT int* const* __restrict__ skipped, IN float* __restrict__ rate,
    IN float* __restrict__ inverse_scale, IN float* __restrict__ found_inf, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, int zero_gradients) {
    const Along along(inverse_scale, found_inf, rate, zero_gradients);
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        const SgdNumbers own = *reinterpret_cast<const SgdNumbers*>(numbers[part.array]);
        const bool first = own.begun == static_cast<float>(along.skipped_before(skipped, part));
        float* buffer = entry(momenta, part.array);
        const bool has_momentum = buffer != nullptr, nesterov = own.nesterov != 0.0f, maximize = own.maximize != 0.0f;
        Arrays<4> all(along, parameters[part.array], gradients[part.array], entry(averages, part.array));
        all.state(along, STATE, buffer);
        all.run(part, along, [&](float (&v)[4], float g) {
            float d = fmaf(own.weight_decay, v[PARAMETER], maximize ? -g : g);
            if (has_momentum) {
                const float b = first ? d : fmaf(own.momentum, v[STATE], own.one_minus_dampening * d);
                v[STATE] = b;
                d = nesterov ? fmaf(own.momentum, b, d) : b;
            }
            v[PARAMETER] = fmaf(-own.lr, d, v[PARAMETER]);
        });
    }
}

// average -= rate * (average - parameter).
extern "C" __global__ void __launch_bounds__(256) moving_average_step(
    INOUT float* const* __restrict__ averages, IN float* const* __restrict__ parameters,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, int arrays, IN float* __restrict__ rate) {
    const float by = rate[0];
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* average = averages[part.array];
        const float* const from[2] = {average, parameters[part.array]};
        float* const to[2] = {average, nullptr};
        update_chunk<2>(part, from, to, [&](float (&v)[2]) { v[0] = fmaf(-by, v[0] - v[1], v[0]); });
    }
}

// Lookahead's every k-th step: the slow weights go on by `rate` of the way, and the parameters become them. numbers = {rate, active}; where
// active is 0 (the steps between) nothing is done, so that a captured step is the same every time.
extern "C" __global__ void __launch_bounds__(256) lookahead_step(
    INOUT float* const* __restrict__ slow, INOUT float* const* __restrict__ parameters,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, int arrays,
    IN float* __restrict__ numbers) {
    const float by = numbers[0];
    if (numbers[1] == 0.0f) return;
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float *kept = slow[part.array], *parameter = parameters[part.array];
        const float* const from[2] = {kept, parameter};
        float* const to[2] = {kept, parameter};
        update_chunk<2>(part, from, to, [&](float (&v)[2]) { v[0] = v[1] = fmaf(-by, v[0] - v[1], v[0]); });
    }
}
