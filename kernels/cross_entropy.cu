// Softmax cross-entropy of float32 logits as a training step wants it (cross_entropy.cuh).

#include "cross_entropy.cuh"

extern "C" __global__ void __launch_bounds__(256) cross_entropy_step_int(
    IN float* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ partial,
    OUT int* __restrict__ partial_correct, INOUT unsigned* __restrict__ counters, OUT float* __restrict__ loss,
    OUT float* __restrict__ dlogits, OUT int* __restrict__ correct, INOUT unsigned long long* __restrict__ fault,
    long long rows, int C, float on, float off, float factor, unsigned launch) {
    step_rows(
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, fault, rows, C, on, off, factor, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_step_long(
    IN float* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ partial,
    OUT int* __restrict__ partial_correct, INOUT unsigned* __restrict__ counters, OUT float* __restrict__ loss,
    OUT float* __restrict__ dlogits, OUT int* __restrict__ correct, INOUT unsigned long long* __restrict__ fault,
    long long rows, int C, float on, float off, float factor, unsigned launch) {
    step_rows(
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, fault, rows, C, on, off, factor, launch);
}
