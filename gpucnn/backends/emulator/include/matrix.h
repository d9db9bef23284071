// Stand-ins for the tensor cores' instructions in kernels/ptx.cuh: ldmatrix, mma.sync and the rounding to tf32.
//
// All 32 lanes of a warp take part (".aligned"); the one that comes last does the work for all (native/matrix.cpp).
#pragma once

#if __CUDA_ARCH__ >= 750
// Up to sm_75 every lane's address must be valid, later only those that are used (PTX ISA, "ldmatrix").
#define GPUCNN_LDMATRIX(name, matrices, transposed)                                                                       \
  static inline void name(unsigned (&r)[matrices], const void* row, GPUCNN_PLACE) {                                       \
    gpucnn_load_matrix(r, row, matrices, transposed, __CUDA_ARCH__ == 750 ? 32 : 8 * matrices, file, line);               \
  }
#else
#define GPUCNN_LDMATRIX(name, matrices, transposed)                                                                       \
  static inline void name(unsigned (&)[matrices], const void*, GPUCNN_PLACE) {                                            \
    gpucnn_trap("ldmatrix needs sm_75 or newer", file, line);                                                             \
  }
#endif
GPUCNN_LDMATRIX(ldmatrix_x2, 2, 0)
GPUCNN_LDMATRIX(ldmatrix_x4, 4, 0)
GPUCNN_LDMATRIX(ldmatrix_x2_trans, 2, 1)
GPUCNN_LDMATRIX(ldmatrix_x4_trans, 4, 1)
#undef GPUCNN_LDMATRIX

#define GPUCNN_MMA(name, kind, least)                                                                                     \
  static inline void name(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], GPUCNN_PLACE) {                  \
    if (__CUDA_ARCH__ < least) gpucnn_trap(#name " needs sm_80 or newer", file, line);                                    \
    gpucnn_matrix_product(kind, d, a, b, file, line);                                                                     \
  }
GPUCNN_MMA(mma_m16n8k16_f16, kProductF16K16, 800)
GPUCNN_MMA(mma_m16n8k16_bf16, kProductBf16K16, 800)
GPUCNN_MMA(mma_m16n8k8_tf32, kProductTf32K8, 800)
#undef GPUCNN_MMA

static inline void mma_m16n8k8_f16(float (&d)[4], const unsigned (&a)[2], unsigned b, GPUCNN_PLACE) {
  if (__CUDA_ARCH__ < 750) gpucnn_trap("mma_m16n8k8_f16 needs sm_75 or newer", file, line);
  gpucnn_matrix_product(kProductF16K8, d, a, &b, file, line);
}

// cvt.rna.tf32.f32: to the nearest of the floats with 10 mantissa bits, ties away from zero.
static inline float to_tf32(float x) {
  uint32_t bits = gpucnn_bits_of(x);
  if ((bits & 0x7F800000u) == 0x7F800000u) return gpucnn_float_of(bits & 0x007FFFFFu ? 0x7FFFE000u : bits);
  return gpucnn_float_of((bits + 0x1000u) & 0xFFFFE000u);
}
