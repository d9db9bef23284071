// Instructions that are more than C++, behind functions that take pointers. Kernels use these and no inline PTX, so that the emulator can
// stand in for each (gpucnn/backends/emulator/include/cuda.h).
//
// cp.async (PTX ISA, "Data Movement and Conversion Instructions: cp.async") copies from global to shared memory on its own, without
// registers, while the thread goes on. A thread's copies since its last cp_async_commit() are a group; cp_async_wait<N>() waits until at
// most N of its groups are still under way. Other threads see the data after a barrier behind that wait. cp_async_16 needs both addresses
// at multiples of 16 bytes; what misses the level-2 cache brings the 128 bytes around it there. The zfill forms write zeros where `valid`
// is false and read nothing then.
//
// sm_80 brought the instruction; for older GPUs these copy at once.
//
// ldmatrix and mma (PTX ISA, "Warp-Level Matrix Instructions") are the tensor cores'. All 32 lanes call them together, and each lane holds
// a fragment. With g = lane / 4 and t = lane % 4, and two halves to a register (the lower one first):
//
//     ldmatrix_xN   Lane 8 i + j gives the address of row j of the 8x8 matrix i: 16 bytes of shared memory at a multiple of 16.
//                   r[i] of a lane gets columns 2t, 2t + 1 of row g; the _trans forms, rows 2t, 2t + 1 of column g.
//     mma_m16n8k16  D (16, 8) += A (16, 16) B (16, 8): a[0] = A[g][2t..], a[1] = A[g + 8][2t..], a[2] = A[g][2t + 8..],
//                   a[3] = A[g + 8][2t + 8..]; b[0] = B[2t..][g], b[1] = B[2t + 8..][g]; d = D[g][2t], D[g][2t + 1], D[g + 8][2t],
//                   D[g + 8][2t + 1]. So ldmatrix_x4 gives a from row-major A, and ldmatrix_x2 gives b from B stored column by column,
//                   ldmatrix_x2_trans from B stored row by row.
//     mma_m16n8k8   the same with A (16, 8) and B (8, 8): a[0], a[1] and b alone.
//     ..._tf32      floats, one to a register, of which the upper 19 bits count: a = A[g][t], A[g + 8][t], A[g][t + 4], A[g + 8][t + 4];
//                   b = B[t][g], B[t + 4][g]. ldmatrix gives these too, from rows of four floats. to_tf32 rounds to nearest, ties
//                   away from zero; without it the lower bits are cut off.
//
// ldmatrix and mma_m16n8k8_f16 need sm_75, the others sm_80. For older GPUs they compile and trap: the host must not choose them.

#pragma once

#ifndef GPUCNN_EMULATED

__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// ---- cp.async -----------------------------------------------------------------------------------------------------------------------

#if __CUDA_ARCH__ >= 800

__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void cp_async_16_zfill(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void cp_async_4(void* shared, const void* global) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void cp_async_4_zfill(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 4 : 0)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else  // before sm_80

__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    *static_cast<float4*>(shared) = *static_cast<const float4*>(global);
}

__device__ __forceinline__ void cp_async_16_zfill(void* shared, const void* global, bool valid) {
    *static_cast<float4*>(shared) = valid ? *static_cast<const float4*>(global) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

__device__ __forceinline__ void cp_async_4(void* shared, const void* global) {
    *static_cast<float*>(shared) = *static_cast<const float*>(global);
}

__device__ __forceinline__ void cp_async_4_zfill(void* shared, const void* global, bool valid) {
    *static_cast<float*>(shared) = valid ? *static_cast<const float*>(global) : 0.0f;
}

__device__ __forceinline__ void cp_async_commit() {}

template <int N>
__device__ __forceinline__ void cp_async_wait() {}

#endif

// ---- ldmatrix -----------------------------------------------------------------------------------------------------------------------

#if __CUDA_ARCH__ >= 750

__device__ __forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void mma_m16n8k8_f16(float (&d)[4], const unsigned (&a)[2], unsigned b) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}

#else  // before sm_75

__device__ __forceinline__ void ldmatrix_x2(unsigned (&)[2], const void*) { __trap(); }
__device__ __forceinline__ void ldmatrix_x4(unsigned (&)[4], const void*) { __trap(); }
__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&)[2], const void*) { __trap(); }
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&)[4], const void*) { __trap(); }
__device__ __forceinline__ void mma_m16n8k8_f16(float (&)[4], const unsigned (&)[2], unsigned) { __trap(); }

#endif

// ---- mma.sync -----------------------------------------------------------------------------------------------------------------------

#if __CUDA_ARCH__ >= 800

__device__ __forceinline__ void mma_m16n8k16_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ float to_tf32(float x) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return __uint_as_float(bits);
}

#else  // before sm_80

__device__ __forceinline__ void mma_m16n8k16_f16(float (&)[4], const unsigned (&)[4], const unsigned (&)[2]) { __trap(); }
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&)[4], const unsigned (&)[4], const unsigned (&)[2]) { __trap(); }
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&)[4], const unsigned (&)[4], const unsigned (&)[2]) { __trap(); }

__device__ __forceinline__ float to_tf32(float x) {
    const unsigned bits = __float_as_uint(x);
    return __uint_as_float((bits & 0x7F800000u) == 0x7F800000u ? bits : (bits + 0x1000u) & 0xFFFFE000u);
}

#endif

// ---- roots and the reciprocal ----------------------------------------------------------------------------------------------------

// 1 / sqrt(x), sqrt(x) and 1 / x by the multifunction unit: relative errors up to 2^-22.9, 2^-23 and 2^-23 (PTX ISA, "rsqrt", "sqrt", "rcp");
// subnormals are 0.
__device__ __forceinline__ float rsqrt_approx(float x) {
    float root;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
}

__device__ __forceinline__ float sqrt_approx(float x) {
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x));
    return root;
}

__device__ __forceinline__ float reciprocal_approx(float x) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(x));
    return inverse;
}

#endif
