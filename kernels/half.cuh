// float16 and bfloat16 as storage: 16 bits in memory, float in arithmetic. No header of CUDA's is needed, and every architecture has both.
//
//     float16   1 sign, 5 exponent, 10 mantissa bits: IEEE 754 binary16, largest 65504, smallest normal 2^-14, smallest 2^-24
//     bfloat16  1 sign, 8 exponent, 7 mantissa bits: the upper half of a float
//
// `to_float` is exact. `from_float<T>` rounds to nearest, ties to even; what is too large becomes an infinity, and NaN becomes the NaN
// 0x7FFF (PTX ISA, "cvt"). Both take float too, so a template over the storage type needs no special case.
//
// float16x2 and float16x8 (bfloat16x2, bfloat16x8) are aligned to their 4 and 16 bytes and move with one instruction. A kernel that takes
// a pointer to one asks for an array of float16 that starts at a multiple of so many bytes and holds a multiple of so many elements.

#pragma once

struct float16 { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

struct alignas(4) float16x2 { float16 v[2]; };
struct alignas(4) bfloat16x2 { bfloat16 v[2]; };
struct alignas(16) float16x8 { float16 v[8]; };
struct alignas(16) bfloat16x8 { bfloat16 v[8]; };

#ifndef GPUCNN_EMULATED  // the emulator has its own (gpucnn/backends/emulator/include/half.h)

__device__ __forceinline__ float float16_to_float(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

__device__ __forceinline__ unsigned short float_to_float16(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

__device__ __forceinline__ unsigned short float_to_bfloat16(float x) {
#if __CUDA_ARCH__ >= 800
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    const unsigned bits = __float_as_uint(x);
    return static_cast<unsigned short>(x != x ? 0x7FFFu : (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
#endif
}

#endif

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(float16 x) { return float16_to_float(x.bits); }
__device__ __forceinline__ float to_float(bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

template <typename T>
__device__ __forceinline__ T from_float(float x);

template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }

template <>
__device__ __forceinline__ float16 from_float<float16>(float x) { return {float_to_float16(x)}; }

template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float x) { return {float_to_bfloat16(x)}; }

// The vector type of 2 or 8 elements of T: `HalfVector<float16, 8>::type` is float16x8.
template <typename T, int N> struct HalfVector;
template <> struct HalfVector<float16, 2> { using type = float16x2; };
template <> struct HalfVector<bfloat16, 2> { using type = bfloat16x2; };
template <> struct HalfVector<float16, 8> { using type = float16x8; };
template <> struct HalfVector<bfloat16, 8> { using type = bfloat16x8; };
