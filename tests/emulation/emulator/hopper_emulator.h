// The vocabulary of csrc/cuda/hopper.h on the CPU. The TMA copies when its mbarrier is waited for,
// warpgroups multiply when their group is waited for; until then destinations and sums are NaN.
#pragma once

#include "emulator.h"

namespace usucl::cuda {

// The placeholder in a kernel's struct; the emulator keeps the state elsewhere.
struct Mbarrier {
  uint64_t state;
};

struct TensorMap {
  TiledMatrix matrix;
};

}  // namespace usucl::cuda

namespace usucl::emulation {

// The place of a call, for reports of deadlocks and races.
struct Caller {
  const char* file;
  int line;
  const void* address;
};

void mbarrier_init(cuda::Mbarrier* barrier, int arrivals, const Caller& caller);
void fence_mbarrier_init();
void mbarrier_arrive(cuda::Mbarrier* barrier, int bytes, const Caller& caller);
void mbarrier_wait(cuda::Mbarrier* barrier, int parity, const Caller& caller);
void tma_load(void* shared, const cuda::TiledMatrix& matrix, int row, int column,
              cuda::Mbarrier* barrier, const Caller& caller);
void named_barrier_sync(int number, int threads, const Caller& caller);
void fence_proxy_async();

uint32_t shared_address(const void* pointer);
void wgmma_fence(const Caller& caller);
void wgmma(Elements elements, float* sum, uint64_t a, uint64_t b, bool add, const Caller& caller);
void wgmma_commit(const Caller& caller);
void wgmma_wait(int pending, float* sum, const Caller& caller);
void set_registers(const Caller& caller);

}  // namespace usucl::emulation

// Only for functions that are not inlined.
#define USUCL_HERE (usucl::emulation::Caller{file, line, __builtin_return_address(0)})

namespace usucl::cuda {

inline TensorMap tensor_map(const TiledMatrix& matrix) {
  check_tiled(matrix);
  return {matrix};
}

USUCL_UNINSTRUMENTED inline void mbarrier_init(Mbarrier& barrier, int arrivals, USUCL_CALLER) {
  emulation::mbarrier_init(&barrier, arrivals, USUCL_HERE);
}

inline void fence_mbarrier_init() { emulation::fence_mbarrier_init(); }

inline void fence_proxy_async() { emulation::fence_proxy_async(); }

USUCL_UNINSTRUMENTED inline void mbarrier_arrive(Mbarrier& barrier, USUCL_CALLER) {
  emulation::mbarrier_arrive(&barrier, 0, USUCL_HERE);
}

USUCL_UNINSTRUMENTED inline void mbarrier_arrive_expect_tx(Mbarrier& barrier, int bytes,
                                                           USUCL_CALLER) {
  emulation::mbarrier_arrive(&barrier, bytes, USUCL_HERE);
}

USUCL_UNINSTRUMENTED inline void mbarrier_wait(Mbarrier& barrier, int parity, USUCL_CALLER) {
  emulation::mbarrier_wait(&barrier, parity, USUCL_HERE);
}

inline void prefetch_tensor_map(const TensorMap&) {}

USUCL_UNINSTRUMENTED inline void tma_load(void* shared, const TensorMap& map, int row, int column,
                                          Mbarrier& full, USUCL_CALLER) {
  emulation::tma_load(shared, map.matrix, row, column, &full, USUCL_HERE);
}

inline uint32_t shared_address(const void* pointer) { return emulation::shared_address(pointer); }

USUCL_UNINSTRUMENTED inline void wgmma_fence(USUCL_CALLER) { emulation::wgmma_fence(USUCL_HERE); }

USUCL_UNINSTRUMENTED inline void wgmma_commit(USUCL_CALLER) { emulation::wgmma_commit(USUCL_HERE); }

template <int kPending>
USUCL_UNINSTRUMENTED void wgmma_wait(USUCL_CALLER) {
  emulation::wgmma_wait(kPending, nullptr, USUCL_HERE);
}

template <int kPending>
USUCL_UNINSTRUMENTED void wgmma_wait(float (&sum)[kWarpgroupSums], USUCL_CALLER) {
  emulation::wgmma_wait(kPending, sum, USUCL_HERE);
}

USUCL_UNINSTRUMENTED inline void wgmma_bfloat16(float (&sum)[kWarpgroupSums], uint64_t a,
                                                uint64_t b, bool add, USUCL_CALLER) {
  emulation::wgmma(emulation::Elements::kBFloat16, sum, a, b, add, USUCL_HERE);
}

USUCL_UNINSTRUMENTED inline void wgmma_float16(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b,
                                               bool add, USUCL_CALLER) {
  emulation::wgmma(emulation::Elements::kFloat16, sum, a, b, add, USUCL_HERE);
}

USUCL_UNINSTRUMENTED inline void wgmma_tf32(float (&sum)[kWarpgroupSums], uint64_t a, uint64_t b,
                                            bool add, USUCL_CALLER) {
  emulation::wgmma(emulation::Elements::kTF32, sum, a, b, add, USUCL_HERE);
}

template <int kCount>
USUCL_UNINSTRUMENTED void decrease_registers(USUCL_CALLER) {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
  emulation::set_registers(USUCL_HERE);
}

template <int kCount>
USUCL_UNINSTRUMENTED void increase_registers(USUCL_CALLER) {
  static_assert(kCount % 8 == 0 && kCount >= 24 && kCount <= 256);
  emulation::set_registers(USUCL_HERE);
}

USUCL_UNINSTRUMENTED inline void named_barrier_sync(int number, int threads, USUCL_CALLER) {
  emulation::named_barrier_sync(number, threads, USUCL_HERE);
}

}  // namespace usucl::cuda
