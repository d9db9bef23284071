// Instructions that are more than C++, behind functions that take pointers. Kernels use these and no inline PTX, so that the emulator can
// stand in for each (gpucnn/backends/emulator/include/cuda.h).
//
// cp.async (PTX ISA, "Data Movement and Conversion Instructions: cp.async") copies from global to shared memory on its own, without
// registers, while the thread goes on. A thread's copies since its last cp_async_commit() are a group; cp_async_wait<N>() waits until at
// most N of its groups are still under way. Other threads see the data after a barrier behind that wait. cp_async_16 needs both addresses
// at multiples of 16 bytes. The zfill forms write zeros where `valid` is false and read nothing then.
//
// sm_80 brought the instruction; for older GPUs these copy at once.

#pragma once

#ifndef GPUCNN_EMULATED

#if __CUDA_ARCH__ >= 800

__device__ __forceinline__ unsigned shared_address(const void* shared) {
    return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void cp_async_16_zfill(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0)
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
#endif
