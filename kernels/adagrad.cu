// Adagrad over all parameters of a network in one launch, PyTorch's rules:
//
//     g = gradient (minus gradient with `maximize`) + weight_decay * parameter
//     sum += g * g;  parameter -= lr * g / (sqrt(sum) + eps)
//
// lr is that of the step, its decay applied by the host. Tables, launch and mapping: chunks.cuh.

#include "chunks.cuh"

extern "C" __global__ void __launch_bounds__(256) adagrad_step(
    INOUT float* const* __restrict__ parameters, IN float* const* __restrict__ gradients,
    INOUT float* const* __restrict__ sums, IN long long* __restrict__ first_chunk, IN long long* __restrict__ sizes,
    IN float* __restrict__ weight_decays, int arrays, float lr, float eps, int maximize) {
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ parameter = parameters[part.array];
        IN float* __restrict__ gradient = gradients[part.array];
        float* __restrict__ sum = sums[part.array];
        const float weight_decay = weight_decays[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float p = parameter[i];
            const float g = fmaf(weight_decay, p, maximize ? -gradient[i] : gradient[i]);
            const float s = fmaf(g, g, sum[i]);
            sum[i] = s;
            parameter[i] = fmaf(-lr, g / (sqrtf(s) + eps), p);
        }
    }
}
