// Stand-ins for kernels/hopper.cuh (native/hopper.cpp): only sm_90 has them.
#pragma once

#if __CUDA_ARCH__ == 900
#define GPUCNN_HOPPER(name)
#else
#define GPUCNN_HOPPER(name) gpucnn_trap(name " needs sm_90a", file, line);
#endif

static inline void fence_proxy_async(GPUCNN_PLACE) { GPUCNN_HOPPER("fence.proxy.async") }
static inline void wgmma_fence(GPUCNN_PLACE) {
  GPUCNN_HOPPER("wgmma")
  gpucnn_wgmma_fence(file, line);
}
static inline void wgmma_commit(GPUCNN_PLACE) {
  GPUCNN_HOPPER("wgmma")
  gpucnn_wgmma_commit(file, line);
}
template <int GROUPS>
static inline void wgmma_wait(GPUCNN_PLACE) {
  GPUCNN_HOPPER("wgmma")
  gpucnn_wgmma_wait(GROUPS, file, line);
}
template <int R>
static inline void keep_registers(float (&)[R]) {}

#define GPUCNN_WGMMA(name, bfloat)                                                                                          \
  template <int N, bool M_MAJOR = false, bool N_MAJOR = false, int SWIZZLE = 128>                                           \
  static inline void name(float (&d)[N / 2], const void* a, const void* b, bool accumulate, int a_leading = 16,             \
                          int b_leading = 16, GPUCNN_PLACE) {                                                               \
    static_assert(SWIZZLE == 128 || SWIZZLE == 64, "a line has 128 or 64 bytes");                                           \
    static_assert(N == 8 || N == 64 || N == 128 || N == 256, "wgmma is wrapped for N = 8, 64, 128 and 256");                \
    GPUCNN_HOPPER("wgmma")                                                                                                  \
    GpucnnWgmma product = {d, a, b, a_leading, b_leading, N, accumulate, M_MAJOR, N_MAJOR, SWIZZLE, bfloat};                \
    gpucnn_wgmma(&product, file, line);                                                                                     \
  }
GPUCNN_WGMMA(wgmma_f16, 0)
GPUCNN_WGMMA(wgmma_bf16, 1)
#undef GPUCNN_WGMMA

static inline void mbarrier_init(unsigned long long* barrier, unsigned count, GPUCNN_PLACE) {
  GPUCNN_HOPPER("mbarrier")
  gpucnn_mbarrier_init(barrier, count, file, line);
}
static inline void mbarrier_arrive(unsigned long long* barrier, GPUCNN_PLACE) {
  GPUCNN_HOPPER("mbarrier")
  gpucnn_mbarrier_arrive(barrier, 0, file, line);
}
static inline void mbarrier_arrive_expect_tx(unsigned long long* barrier, unsigned bytes, GPUCNN_PLACE) {
  GPUCNN_HOPPER("mbarrier")
  gpucnn_mbarrier_arrive(barrier, bytes, file, line);
}
static inline void mbarrier_wait(unsigned long long* barrier, int parity, GPUCNN_PLACE) {
  GPUCNN_HOPPER("mbarrier")
  gpucnn_mbarrier_wait(barrier, parity, file, line);
}
static inline void bulk_copy(void* shared, const void* global, unsigned bytes, unsigned long long* barrier, GPUCNN_PLACE) {
  GPUCNN_HOPPER("cp.async.bulk")
  gpucnn_bulk_copy(shared, global, bytes, barrier, file, line);
}
static inline void cp_async_arrive(unsigned long long* barrier, GPUCNN_PLACE) {
  GPUCNN_HOPPER("cp.async.mbarrier.arrive")
  gpucnn_copy_arrive(barrier, file, line);
}
template <int R>
static inline void set_max_registers_decrease() {
  static_assert(R >= 24 && R <= 256 && R % 8 == 0, "setmaxnreg takes multiples of 8 from 24 to 256");
}
static inline void named_barrier_sync(int id, int threads, GPUCNN_PLACE) { gpucnn_named_barrier(id, threads, 1, file, line); }
static inline void named_barrier_arrive(int id, int threads, GPUCNN_PLACE) { gpucnn_named_barrier(id, threads, 0, file, line); }
#undef GPUCNN_HOPPER
