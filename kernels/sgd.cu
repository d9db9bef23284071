// SGD over all parameters of a network in one launch, PyTorch's rules:
//
//     d = gradient + weight_decay * parameter
//     with momentum:  buffer = d at the first step, else momentum * buffer + (1 - dampening) * d
//                     d = d + momentum * buffer (Nesterov), else buffer
//     parameter -= lr * d
//
// and the moving average of the weights, average -= rate * (average - parameter), likewise. `maximize` turns the
// gradient's sign.
//
// Each array has its own weight decay, for biases commonly have none. Tables, launch and mapping: chunks.cuh.

#include "chunks.cuh"

extern "C" __global__ void __launch_bounds__(256) sgd_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, IN float* __restrict__ weight_decays,
    int arrays, float lr, int maximize) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            parameter[i] = fmaf(-lr, fmaf(weight_decay, p, maximize ? -gradient[i] : gradient[i]), p);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) sgd_momentum_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ momenta, IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes,
    IN float* __restrict__ weight_decays, int arrays, float lr, float momentum, float one_minus_dampening, int nesterov,
    int first, int maximize) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        const float weight_decay = weight_decays[part.array];
        float* __restrict__ buffer = momenta[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            const float d = fmaf(weight_decay, p, maximize ? -gradient[i] : gradient[i]);
            const float b = first ? d : fmaf(momentum, buffer[i], one_minus_dampening * d);
            buffer[i] = b;
            parameter[i] = fmaf(-lr, nesterov ? fmaf(momentum, b, d) : b, p);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256) moving_average_step(
    INOUT float* const* __restrict__ averages, IN float* const* __restrict__ parameters,
    IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes, int arrays, float rate) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ average = averages[part.array];
        IN float* __restrict__ parameter = parameters[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float a = average[i];
            average[i] = fmaf(-rate, a - parameter[i], a);
        }
    }
}
