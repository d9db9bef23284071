// CUDA C++ for the host's compiler: everything that a file in kernels/ may use, so that it compiles unchanged.
//
// A block's threads are fibers of one host thread (native/fibers.cpp). A thread runs until it waits at a barrier or at a warp
// collective, or until it ends; then the next one in the order of this run goes on. Nothing runs at the same time as
// anything else, so the plain code below is atomic wherever it does not wait.
//
// Left out on purpose: float atomics (results must not depend on the order of threads) and __activemask (its value
// is not defined by the program).
#pragma once

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "half.h"
#include "runtime.h"

#define GPUCNN_EMULATED 1

// ---- qualifiers ------------------------------------------------------------------------------------------------------

#define __global__ __attribute__((noinline, used, visibility("default")))
#define __device__
#define __host__
#define __constant__ static const
// thread_local is the one specifier that makes a local variable static and may also stand behind `extern`. Where such a
// variable lies is asked of __tls_get_addr, which each compiled file defines for itself (build.py): the block's memory.
#define __shared__ thread_local
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __builtin_align__(bytes) __attribute__((aligned(bytes)))

// ---- vector types ----------------------------------------------------------------------------------------------------

#define GPUCNN_VECTOR(scalar, name, size)                                                                    \
  struct __attribute__((aligned(2 * sizeof(scalar)))) name##2 { scalar x, y; };                              \
  struct name##3 { scalar x, y, z; };                                                                        \
  struct __attribute__((aligned(4 * sizeof(scalar) > 16 ? 16 : 4 * sizeof(scalar)))) name##4 { scalar x, y, z, w; }; \
  static inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                                \
  static inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                   \
  static inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

GPUCNN_VECTOR(float, float, 4)
GPUCNN_VECTOR(double, double, 8)
GPUCNN_VECTOR(int, int, 4)
GPUCNN_VECTOR(signed char, char, 1)
GPUCNN_VECTOR(unsigned char, uchar, 1)
GPUCNN_VECTOR(short, short, 2)
GPUCNN_VECTOR(unsigned short, ushort, 2)
GPUCNN_VECTOR(long long, longlong, 8)
GPUCNN_VECTOR(unsigned long long, ulonglong, 8)
#undef GPUCNN_VECTOR

struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

constexpr int warpSize = 32;

// ---- barriers --------------------------------------------------------------------------------------------------------

// The caller's place tells barriers apart.
#define GPUCNN_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(GPUCNN_PLACE) { gpucnn_barrier(kBarrierPlain, 0, file, line); }
static inline int __syncthreads_count(int predicate, GPUCNN_PLACE) {
  return (int)gpucnn_barrier(kBarrierCount, predicate, file, line);
}
static inline int __syncthreads_and(int predicate, GPUCNN_PLACE) {
  return (int)gpucnn_barrier(kBarrierAnd, predicate, file, line);
}
static inline int __syncthreads_or(int predicate, GPUCNN_PLACE) {
  return (int)gpucnn_barrier(kBarrierOr, predicate, file, line);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, GPUCNN_PLACE) { gpucnn_warp(kWarpSync, mask, 0, 0, file, line); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

// ---- warp collectives ------------------------------------------------------------------------------------------------

template <typename T>
static inline T gpucnn_shuffle(unsigned mask, T value, int source, const char* file, int line) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = gpucnn_warp(kWarpShuffle, mask, bits, source, file, line);
  memcpy(&value, &bits, sizeof(T));
  return value;
}
template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, GPUCNN_PLACE) {
  int lane = gpucnn_lane();
  return gpucnn_shuffle(mask, value, (lane & ~(width - 1)) + (source & (width - 1)), file, line);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GPUCNN_PLACE) {
  int lane = gpucnn_lane(), source = lane - (int)delta;
  return gpucnn_shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, file, line);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GPUCNN_PLACE) {
  int lane = gpucnn_lane(), source = lane + (int)delta;
  return gpucnn_shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, file, line);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, GPUCNN_PLACE) {
  int lane = gpucnn_lane(), source = lane ^ lane_mask;
  return gpucnn_shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, GPUCNN_PLACE) {
  return (unsigned)gpucnn_warp(kWarpBallot, mask, predicate != 0, 0, file, line);
}
static inline int __all_sync(unsigned mask, int predicate, GPUCNN_PLACE) {
  return (int)gpucnn_warp(kWarpAll, mask, predicate != 0, 0, file, line);
}
static inline int __any_sync(unsigned mask, int predicate, GPUCNN_PLACE) {
  return (int)gpucnn_warp(kWarpAny, mask, predicate != 0, 0, file, line);
}
template <typename T>
static inline unsigned __match_any_sync(unsigned mask, T value, GPUCNN_PLACE) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  return (unsigned)gpucnn_warp(kWarpMatchAny, mask, bits, 0, file, line);
}
#if __CUDA_ARCH__ >= 800
#define GPUCNN_REDUCE(name, operation, type)                                                        \
  static inline type name(unsigned mask, type value, GPUCNN_PLACE) {                                \
    return (type)gpucnn_warp(operation, mask, (uint64_t)(unsigned)value, 0, file, line);            \
  }
GPUCNN_REDUCE(__reduce_add_sync, kWarpAdd, int)
GPUCNN_REDUCE(__reduce_add_sync, kWarpAdd, unsigned)
GPUCNN_REDUCE(__reduce_min_sync, kWarpMinSigned, int)
GPUCNN_REDUCE(__reduce_min_sync, kWarpMin, unsigned)
GPUCNN_REDUCE(__reduce_max_sync, kWarpMaxSigned, int)
GPUCNN_REDUCE(__reduce_max_sync, kWarpMax, unsigned)
GPUCNN_REDUCE(__reduce_and_sync, kWarpAnd, unsigned)
GPUCNN_REDUCE(__reduce_or_sync, kWarpOr, unsigned)
GPUCNN_REDUCE(__reduce_xor_sync, kWarpXor, unsigned)
#undef GPUCNN_REDUCE
#endif

// ---- atomics on integers: their sum or extremum does not depend on the order of threads -----------------------------

#define GPUCNN_ATOMIC(name, type, expression)                       \
  static inline type name(type* address, type value) {              \
    type old = *address;                                            \
    *address = (expression);                                        \
    return old;                                                     \
  }
#define GPUCNN_ATOMICS(type)                                        \
  GPUCNN_ATOMIC(atomicMax, type, old > value ? old : value)         \
  GPUCNN_ATOMIC(atomicMin, type, old < value ? old : value)         \
  GPUCNN_ATOMIC(atomicAnd, type, old & value)                       \
  GPUCNN_ATOMIC(atomicOr, type, old | value)                        \
  GPUCNN_ATOMIC(atomicXor, type, old ^ value)                       \
  GPUCNN_ATOMIC(atomicExch, type, value)                            \
  static inline type atomicCAS(type* address, type compare, type value) { \
    type old = *address;                                            \
    if (old == compare) *address = value;                           \
    return old;                                                     \
  }
GPUCNN_ATOMICS(int)
GPUCNN_ATOMICS(unsigned)
GPUCNN_ATOMICS(unsigned long long)
GPUCNN_ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)value))  // wraps, as on the GPU
GPUCNN_ATOMIC(atomicAdd, unsigned, old + value)
GPUCNN_ATOMIC(atomicAdd, unsigned long long, old + value)
GPUCNN_ATOMIC(atomicSub, int, (int)((unsigned)old - (unsigned)value))
GPUCNN_ATOMIC(atomicSub, unsigned, old - value)
GPUCNN_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
GPUCNN_ATOMIC(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
#undef GPUCNN_ATOMICS
#undef GPUCNN_ATOMIC

// ---- arithmetic ------------------------------------------------------------------------------------------------------

#define GPUCNN_MIN_MAX(a, b, result)                                                                  \
  static inline constexpr result min(a x, b y) { return (result)x < (result)y ? (result)x : (result)y; } \
  static inline constexpr result max(a x, b y) { return (result)x > (result)y ? (result)x : (result)y; }
GPUCNN_MIN_MAX(int, int, int)
GPUCNN_MIN_MAX(unsigned, unsigned, unsigned)
GPUCNN_MIN_MAX(int, unsigned, unsigned)
GPUCNN_MIN_MAX(unsigned, int, unsigned)
GPUCNN_MIN_MAX(long, long, long)
GPUCNN_MIN_MAX(unsigned long, unsigned long, unsigned long)
GPUCNN_MIN_MAX(long long, long long, long long)
GPUCNN_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
GPUCNN_MIN_MAX(long long, unsigned long long, unsigned long long)
GPUCNN_MIN_MAX(unsigned long long, long long, unsigned long long)
#undef GPUCNN_MIN_MAX
static inline float min(float x, float y) { return __builtin_fminf(x, y); }
static inline float max(float x, float y) { return __builtin_fmaxf(x, y); }
static inline double min(double x, double y) { return __builtin_fmin(x, y); }
static inline double max(double x, double y) { return __builtin_fmax(x, y); }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __saturatef(float x) { return x > 1.0f ? 1.0f : (x > 0.0f ? x : 0.0f); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
// glibc declares functions of its own under these names.
#define __expf(x) expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)

static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)(((uint64_t)x * y) >> 32); }
static inline int __mulhi(int x, int y) { return (int)(((int64_t)x * y) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)(((unsigned __int128)x * y) >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int bit = 0; bit < 32; ++bit) result |= ((x >> bit) & 1u) << (31 - bit);
  return result;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((((uint64_t)high << 32) | low) << (shift & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)((((uint64_t)high << 32) | low) >> (shift & 31));
}
template <typename To, typename From>
static inline To gpucnn_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To result;
  memcpy(&result, &value, sizeof(To));
  return result;
}
static inline int __float_as_int(float x) { return gpucnn_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return gpucnn_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return gpucnn_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return gpucnn_bits<float>(x); }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_ru(float x) { return (int)ceilf(x); }
static inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }
static inline unsigned __float2uint_rz(float x) { return (unsigned)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(unsigned long long x) { return (float)x; }

// A macro, so that UBSan and the debugger name the kernel's line.
#define __ldg(pointer) (*(pointer))
#define __ldcg(pointer) (*(pointer))
#define __ldcs(pointer) (*(pointer))
#define __stcg(pointer, value) ((void)(*(pointer) = (value)))
#define __stcs(pointer, value) ((void)(*(pointer) = (value)))
static inline size_t __cvta_generic_to_shared(const void* pointer) {
  return (size_t)((const unsigned char*)pointer - gpucnn_shared_base);
}

// ---- stopping --------------------------------------------------------------------------------------------------------

#define __trap() gpucnn_trap("__trap() was called", __FILE__, __LINE__)
#undef assert
#define assert(condition) \
  ((condition) ? (void)0 : gpucnn_trap("assertion failed: " #condition, __FILE__, __LINE__))
#if !defined(__clang__)
#define __builtin_assume(condition) \
  ((condition) ? (void)0 : gpucnn_trap("assumption does not hold: " #condition, __FILE__, __LINE__))
#endif

// ---- stand-ins for kernels/ptx.cuh -----------------------------------------------------------------------------------

// cp.async: the destination is poisoned at once and the data lands at the issuing thread's wait (PTX ISA, "cp.async").
static inline void cp_async_16(void* shared, const void* global, GPUCNN_PLACE) {
  gpucnn_copy_async(shared, global, 16, 1, file, line);
}
static inline void cp_async_16_zfill(void* shared, const void* global, bool valid, GPUCNN_PLACE) {
  gpucnn_copy_async(shared, global, 16, valid, file, line);
}
static inline void cp_async_4(void* shared, const void* global, GPUCNN_PLACE) {
  gpucnn_copy_async(shared, global, 4, 1, file, line);
}
static inline void cp_async_4_zfill(void* shared, const void* global, bool valid, GPUCNN_PLACE) {
  gpucnn_copy_async(shared, global, 4, valid, file, line);
}
static inline void cp_async_commit() { gpucnn_copy_commit(); }
template <int N>
static inline void cp_async_wait() {
  gpucnn_copy_wait(N);
}

// The multifunction unit's results are off by as much as they may be, up or down by a bit of the argument.
static inline float gpucnn_off_by(double exact, float x, double error) {
  return (float)(exact * (gpucnn_bits<unsigned>(x) * 0x9E3779B1u >> 31 ? 1 + error : 1 - error));
}
static inline float rsqrt_approx(float x) { return gpucnn_off_by(1 / sqrt((double)x), x, 0x1.12p-23); }  // 2^-22.9
static inline float sqrt_approx(float x) { return gpucnn_off_by(sqrt((double)x), x, 0x1p-23); }
static inline float reciprocal_approx(float x) { return gpucnn_off_by(1 / (double)x, x, 0x1p-23); }

#include "hopper.h"
#include "matrix.h"

// ---- how the runtime enters a kernel ---------------------------------------------------------------------------------

template <int... I>
struct gpucnn_indices {};
template <int N, int... I>
struct gpucnn_make_indices : gpucnn_make_indices<N - 1, N - 1, I...> {};
template <int... I>
struct gpucnn_make_indices<0, I...> {
  using type = gpucnn_indices<I...>;
};
template <typename T>
struct gpucnn_value { using type = T; };
template <typename T>
struct gpucnn_value<const T> { using type = T; };

// arguments[i] points at the value of argument i, as for cudaLaunchKernel.
template <typename... A, int... I>
static inline void gpucnn_call(void (*kernel)(A...), void* const* arguments, gpucnn_indices<I...>) {
  kernel(*static_cast<typename gpucnn_value<A>::type*>(arguments[I])...);
}
template <typename... A>
static inline void gpucnn_enter(void (*kernel)(A...), void* const* arguments) {
  gpucnn_call(kernel, arguments, typename gpucnn_make_indices<(int)sizeof...(A)>::type());
}
// sizes[i] = sizeof argument i; returns the number of arguments, so that Python can check what it packs.
template <typename... A>
static inline int gpucnn_describe(void (*)(A...), size_t* sizes) {
  size_t all[] = {sizeof(A)..., 0};
  for (size_t i = 0; i < sizeof...(A); ++i) sizes[i] = all[i];
  return (int)sizeof...(A);
}
#define GPUCNN_KERNEL(name)                                                                                       \
  GPUCNN_EXPORT void gpucnn_enter_##name(void* const* arguments) { gpucnn_enter(name, arguments); }               \
  GPUCNN_EXPORT int gpucnn_describe_##name(size_t* sizes) { return gpucnn_describe(name, sizes); }
