// Softmax cross-entropy of float32 logits, a loss for each row and the gradient of any of them (cross_entropy.cuh).
//
// gpucnn: compiled on first use

#include "cross_entropy.cuh"

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_int(
    IN float* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_int(
    IN float* __restrict__ dlosses, IN float* __restrict__ logits, IN int* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT float* __restrict__ dlogits, long long rows, int C, float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_long(
    IN float* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_long(
    IN float* __restrict__ dlosses, IN float* __restrict__ logits, IN long long* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT float* __restrict__ dlogits, long long rows, int C, float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}
