// Loss scaling for float16, decided on the device: nothing is read on the host, so a captured step may use it.
//
// state = {scale, 1 / scale, steps since the scale changed, skipped steps}. A step launches check_gradients, then the optimizers (which skip
// where found_inf is not 0, updates.cuh), then update_scale. PyTorch's torch.amp.GradScaler has the same rules.
// gpucnn: compiled on first use

#include "chunks.cuh"

// y = x * factor[0]. Grid-stride loop, one element a thread and turn; no alignment needed.
extern "C" __global__ void __launch_bounds__(256) scale_by(
    IN float* __restrict__ x, IN float* __restrict__ factor, OUT float* __restrict__ y, long long size) {
    const float by = factor[0];
    for (long long i = grid_stride_begin(); i < size; i += grid_stride_step()) y[i] = x[i] * by;
}

// found_inf[0] = 1 where any gradient is infinite or NaN, after it was multiplied with inverse_scale[0] and stored again if that is not null.
// Whoever finds one writes the same 1, so the order does not matter. Mapping: chunks.cuh.
extern "C" __global__ void __launch_bounds__(256) check_gradients(
    INOUT float* const* __restrict__ gradients, IN long long* __restrict__ first_chunk,
    IN long long* __restrict__ sizes, int arrays, INOUT float* __restrict__ found_inf,
    IN float* __restrict__ inverse_scale) {
    const bool unscale = inverse_scale != nullptr;
    const float by = unscale ? inverse_scale[0] : 1.0f;
    bool finite = true;
    for (long long chunk = blockIdx.x; chunk < first_chunk[arrays]; chunk += gridDim.x) {
        const Chunk part = find_chunk(chunk, first_chunk, sizes, arrays);
        float* __restrict__ gradient = gradients[part.array];
        for (long long i = part.begin + threadIdx.x; i < part.end; i += blockDim.x) {
            const float g = gradient[i] * by;
            finite = finite && (__float_as_int(g) & INFINITY_BITS) != INFINITY_BITS;
            if (unscale) gradient[i] = g;
        }
    }
    if (!finite) found_inf[0] = 1.0f;
}

// One thread. The scale never grows to infinity, as in PyTorch.
extern "C" __global__ void __launch_bounds__(32) update_scale(
    INOUT float* __restrict__ state, INOUT float* __restrict__ found_inf, int count, float growth, float backoff, int interval) {
    bool overflow = false;
    for (int i = 0; i < count; ++i) {
        overflow = overflow || found_inf[i] != 0.0f;
        found_inf[i] = 0.0f;
    }
    float scale = state[0], since = state[2];
    if (overflow) {
        scale *= backoff;
        since = 0.0f;
        state[3] += 1.0f;
    } else {
        since += 1.0f;
        if (since >= static_cast<float>(interval)) {
            const float grown = scale * growth;
            if ((__float_as_int(grown) & INFINITY_BITS) != INFINITY_BITS) scale = grown;
            since = 0.0f;
        }
    }
    state[0] = scale;
    state[1] = 1.0f / scale;
    state[2] = since;
}
