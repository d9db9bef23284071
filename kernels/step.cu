// The end of a training step that was captured: what the host wants to know of it, kept on the device, and its counters moved on.
//
// Launch: one thread. losses and corrects are rings of `size` words in which part `part` of `parts` of step s has the place
// (s * parts + part) % size. state is [epoch, batch, step, ...]; with the step's last part the batch moves on, after an epoch's last
// (there are `batches`) to the next epoch's first, and the step too.

#include "common.cuh"

extern "C" __global__ void __launch_bounds__(32) advance_step(
    IN float* __restrict__ loss, IN int* __restrict__ correct, INOUT float* __restrict__ losses, INOUT int* __restrict__ corrects,
    INOUT long long* __restrict__ state, long long batches, int size, int part, int parts) {
    if (threadIdx.x != 0 || blockIdx.x != 0) return;
    const long long step = state[2];
    const long long place = (step * parts + part) % size;
    losses[place] = *loss;
    corrects[place] = *correct;
    if (part + 1 < parts) return;
    const long long batch = state[1] + 1;
    state[1] = batch < batches ? batch : 0;
    state[0] += batch < batches ? 0 : 1;
    state[2] = step + 1;
}
