// Softmax cross-entropy of float16 and bfloat16 logits (cross_entropy.cuh); losses are float32. A step's gradient of float16 logits is
// float32 too: a loss scale has yet to come before the rounding.
//
// gpucnn: compiled on first use

#include "cross_entropy.cuh"

extern "C" __global__ void __launch_bounds__(256) cross_entropy_step_int_float16(
    IN float16* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ partial,
    OUT int* __restrict__ partial_correct, INOUT unsigned* __restrict__ counters, OUT float* __restrict__ loss,
    OUT float* __restrict__ dlogits, OUT int* __restrict__ correct, INOUT unsigned long long* __restrict__ fault,
    long long rows, int C, float on, float off, float factor, unsigned launch) {
    step_rows(
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, fault, rows, C, on, off, factor, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_step_long_float16(
    IN float16* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ partial,
    OUT int* __restrict__ partial_correct, INOUT unsigned* __restrict__ counters, OUT float* __restrict__ loss,
    OUT float* __restrict__ dlogits, OUT int* __restrict__ correct, INOUT unsigned long long* __restrict__ fault,
    long long rows, int C, float on, float off, float factor, unsigned launch) {
    step_rows(
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, fault, rows, C, on, off, factor, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_step_int_bfloat16(
    IN bfloat16* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ partial,
    OUT int* __restrict__ partial_correct, INOUT unsigned* __restrict__ counters, OUT float* __restrict__ loss,
    OUT bfloat16* __restrict__ dlogits, OUT int* __restrict__ correct, INOUT unsigned long long* __restrict__ fault,
    long long rows, int C, float on, float off, float factor, unsigned launch) {
    step_rows(
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, fault, rows, C, on, off, factor, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_step_long_bfloat16(
    IN bfloat16* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ partial,
    OUT int* __restrict__ partial_correct, INOUT unsigned* __restrict__ counters, OUT float* __restrict__ loss,
    OUT bfloat16* __restrict__ dlogits, OUT int* __restrict__ correct, INOUT unsigned long long* __restrict__ fault,
    long long rows, int C, float on, float off, float factor, unsigned launch) {
    step_rows(
        logits, labels, partial, partial_correct, counters, loss, dlogits, correct, fault, rows, C, on, off, factor, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_int_float16(
    IN float16* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_int_float16(
    IN float* __restrict__ dlosses, IN float16* __restrict__ logits, IN int* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT float16* __restrict__ dlogits, long long rows, int C, float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_long_float16(
    IN float16* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_long_float16(
    IN float* __restrict__ dlosses, IN float16* __restrict__ logits, IN long long* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT float16* __restrict__ dlogits, long long rows, int C, float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_int_bfloat16(
    IN bfloat16* __restrict__ logits, IN int* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_int_bfloat16(
    IN float* __restrict__ dlosses, IN bfloat16* __restrict__ logits, IN int* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT bfloat16* __restrict__ dlogits, long long rows, int C, float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_forward_long_bfloat16(
    IN bfloat16* __restrict__ logits, IN long long* __restrict__ labels, OUT float* __restrict__ losses,
    OUT float* __restrict__ log_sum_exp, INOUT unsigned long long* __restrict__ fault, long long rows, int C,
    float on, float off, unsigned launch) {
    forward_rows(logits, labels, losses, log_sum_exp, fault, rows, C, on, off, launch);
}

extern "C" __global__ void __launch_bounds__(256) cross_entropy_backward_long_bfloat16(
    IN float* __restrict__ dlosses, IN bfloat16* __restrict__ logits, IN long long* __restrict__ labels,
    IN float* __restrict__ log_sum_exp, OUT bfloat16* __restrict__ dlogits, long long rows, int C, float on, float off) {
    backward_rows(dlosses, logits, labels, log_sum_exp, dlogits, rows, C, on, off);
}
