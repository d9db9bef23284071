// What the emulator's runtime (native/), the code that stands in for CUDA (cuda.h) and Python (runtime.py) share.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define GPUCNN_EXPORT extern "C" __attribute__((visibility("default")))

struct uint3 { unsigned x, y, z; };

// Numbers of faults; faults.py turns each into an exception class.
enum GpucnnFaultKind {
  kFaultNone = 0,
  kFaultMemory = 1,      // an address that cannot be read or written
  kFaultUndefined = 2,   // undefined behaviour that UBSan found
  kFaultMisaligned = 3,
  kFaultBarrier = 4,
  kFaultWarp = 5,
  kFaultTrap = 6,        // __trap(), a failed assert, an illegal instruction
  kFaultArithmetic = 7,  // an integer division by zero that reached the processor
  kFaultTimeout = 8,
  kFaultOverrun = 9,     // bytes between an array's end and its guard page were written
  kFaultStack = 10,
  kFaultCopy = 11,       // cp.async used wrongly
  kFaultMemoryLimit = 12 // the host refused memory
};

enum GpucnnWarpOperation {
  kWarpSync, kWarpShuffle, kWarpBallot, kWarpAll, kWarpAny, kWarpAdd, kWarpMin, kWarpMax,
  kWarpMinSigned, kWarpMaxSigned, kWarpAnd, kWarpOr, kWarpXor, kWarpMatchAny,
  kWarpLoadMatrix = 64,  // + the number of matrices, + 8 if transposed
  kWarpMatrixProduct = 80  // + GpucnnMatrixProduct
};

enum GpucnnMatrixProduct { kProductF16K16, kProductBf16K16, kProductTf32K8, kProductF16K8 };

enum GpucnnBarrierOperation { kBarrierPlain, kBarrierCount, kBarrierAnd, kBarrierOr };

// The index variables of the thread that is running: set at every switch of threads, so `print threadIdx` works in gdb.
GPUCNN_EXPORT uint3 threadIdx;
GPUCNN_EXPORT uint3 blockIdx;
GPUCNN_EXPORT uint3 blockDim;
GPUCNN_EXPORT uint3 gridDim;

// Where the running block's shared memory begins: static variables first, `extern __shared__` behind them.
GPUCNN_EXPORT unsigned char* gpucnn_shared_base;

GPUCNN_EXPORT unsigned gpucnn_barrier(int operation, int value, const char* file, int line);
GPUCNN_EXPORT uint64_t gpucnn_warp(int operation, unsigned mask, uint64_t value, int source, const char* file, int line);
GPUCNN_EXPORT int gpucnn_lane();
GPUCNN_EXPORT void gpucnn_load_matrix(unsigned* registers, const void* row, int matrices, int transposed, int addresses,
                                      const char* file, int line);
GPUCNN_EXPORT void gpucnn_matrix_product(int kind, float* d, const unsigned* a, const unsigned* b, const char* file, int line);
struct GpucnnWgmma {  // a thread's arguments
  float* d;
  const void *a, *b;
  int a_leading, b_leading, n, accumulate, m_major, n_major, swizzle, bfloat;
};
GPUCNN_EXPORT void gpucnn_wgmma(const GpucnnWgmma* product, const char* file, int line);
GPUCNN_EXPORT void gpucnn_wgmma_fence(const char* file, int line);
GPUCNN_EXPORT void gpucnn_wgmma_commit(const char* file, int line);
GPUCNN_EXPORT void gpucnn_wgmma_wait(int groups_under_way, const char* file, int line);
GPUCNN_EXPORT void gpucnn_mbarrier_init(unsigned long long* barrier, unsigned count, const char* file, int line);
GPUCNN_EXPORT void gpucnn_mbarrier_arrive(unsigned long long* barrier, unsigned bytes, const char* file, int line);
GPUCNN_EXPORT void gpucnn_mbarrier_wait(unsigned long long* barrier, int parity, const char* file, int line);
GPUCNN_EXPORT void gpucnn_bulk_copy(void* shared, const void* global, unsigned bytes, unsigned long long* barrier,
                                    const char* file, int line);
GPUCNN_EXPORT void gpucnn_copy_arrive(unsigned long long* barrier, const char* file, int line);
GPUCNN_EXPORT void gpucnn_named_barrier(int id, int threads, int waits, const char* file, int line);
GPUCNN_EXPORT void gpucnn_copy_async(void* shared, const void* global, int bytes, int valid, const char* file, int line);
GPUCNN_EXPORT void gpucnn_copy_commit();
GPUCNN_EXPORT void gpucnn_copy_wait(int groups_in_flight);
GPUCNN_EXPORT void gpucnn_trap(const char* what, const char* file, int line) __attribute__((noreturn));
