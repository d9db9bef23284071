// float16, bfloat16 and tf32 by bit arithmetic, exactly as the conversion instructions of kernels/half.cuh and ptx.cuh do it.
// The runtime's matrix products use it too.
#pragma once

#include <stdint.h>
#include <string.h>

static inline float gpucnn_float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
static inline uint32_t gpucnn_bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

// The exponent moves from bias 15 to bias 127 by a product with 2^112, which makes subnormals right as well.
static inline float float16_to_float(unsigned short half) {
  uint32_t magnitude = (uint32_t)(half & 0x7FFF) << 13;
  uint32_t bits = gpucnn_bits_of(gpucnn_float_of(magnitude) * 0x1p112f);
  if (magnitude >= 0x0F800000u) bits = magnitude | 0x7F800000u;  // infinity and NaN
  return gpucnn_float_of(bits | (uint32_t)(half & 0x8000) << 16);
}

// Round to nearest, ties to even; NaN is 0x7FFF (PTX ISA, "cvt").
static inline unsigned short float_to_float16(float x) {
  uint32_t bits = gpucnn_bits_of(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7FFF;
  if (magnitude >= 0x47800000u) return (unsigned short)(sign | 0x7C00u);  // from 65536 on; up to there rounding decides
  if (magnitude < 0x38800000u) {  // below 2^-14: the sum's last bit is worth 2^-24, a float16's smallest step
    uint32_t sum = gpucnn_bits_of(gpucnn_float_of(magnitude) + 0.5f);
    return (unsigned short)(sign | (sum - 0x3F000000u));
  }
  uint32_t rounded = magnitude - 0x38000000u + 0x0FFFu + (magnitude >> 13 & 1u);
  return (unsigned short)(sign | rounded >> 13);
}

static inline float gpucnn_bfloat16_to_float(unsigned short half) { return gpucnn_float_of((uint32_t)half << 16); }

static inline unsigned short float_to_bfloat16(float x) {
  uint32_t bits = gpucnn_bits_of(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return (unsigned short)((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}
