// Minimal kernels for the functions of csrc/cuda/hopper.h, for the emulator and for nvcc.
#include "cuda/hopper.h"
#include "on_device.h"

namespace {

using namespace usucl::cuda;
using usucl::test::Arrays;

constexpr int kRowWords = kTileRowBytes / 4;
constexpr int kAnchors = 64, kKeys = 128;

__device__ int own_thread() { return static_cast<int>(threadIdx.x); }

struct Ring {
  Mbarrier full, empty;
  int value;
};

// Thread 0 writes the numbers 0, 1, ... to one place; the others read each number:
// out [steps, threads - 1].
__global__ void phases(int steps, int* out) {
  Ring& ring = shared_memory<Ring>();
  const int readers = static_cast<int>(blockDim.x) - 1;
  if (own_thread() == 0) {
    mbarrier_init(ring.full, 1);
    mbarrier_init(ring.empty, readers);
    fence_mbarrier_init();
  }
  __syncthreads();
  for (int step = 0; step < steps; ++step) {
    if (own_thread() == 0) {
      mbarrier_wait(ring.empty, step % 2 ^ 1);
      ring.value = step;
      mbarrier_arrive(ring.full);
    } else {
      mbarrier_wait(ring.full, step % 2);
      out[step * readers + own_thread() - 1] = ring.value;
      mbarrier_arrive(ring.empty);
    }
  }
}

struct alignas(kTileAlignment) Tile {
  uint32_t word[kAnchors * kRowWords];
  Mbarrier full;
};

// Copies a tile out in the layout of shared memory.
__global__ void tile_load(const __grid_constant__ TensorMap map, int row, int column,
                          uint32_t* out) {
  Tile& tile = shared_memory<Tile>();
  if (own_thread() == 0) {
    prefetch_tensor_map(map);
    mbarrier_init(tile.full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(tile.full, sizeof tile.word);
    tma_load(tile.word, map, row, column, tile.full);
  }
  __syncthreads();
  mbarrier_wait(tile.full, 0);
  for (int i = own_thread(); i < kAnchors * kRowWords; i += static_cast<int>(blockDim.x)) {
    out[i] = tile.word[i];
  }
}

struct alignas(kTileAlignment) Operands {
  uint32_t a[kAnchors * kRowWords], b[kKeys * kRowWords];
  Mbarrier full;
};

enum class Kind { kBFloat16, kFloat16, kTF32 };

// sum [threads, 64] in register layout; threads write b, the TMA copies a.
template <Kind kKind>
__global__ void __launch_bounds__(kWarpgroupThreads, 1)
    warpgroup_product(const __grid_constant__ TensorMap a, const uint32_t* b, int add, float* out) {
  Operands& operands = shared_memory<Operands>();
  const int thread = own_thread();
  if (thread == 0) {
    mbarrier_init(operands.full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(operands.full, sizeof operands.a);
    tma_load(operands.a, a, 0, 0, operands.full);
  }
  for (int i = thread; i < kKeys * kRowWords; i += kWarpgroupThreads) {
    const int row = i / kRowWords, word = i % kRowWords;
    operands.b[row * kRowWords + (word / 4 ^ row % 8) * 4 + word % 4] = b[i];
  }
  fence_proxy_async();
  __syncthreads();
  mbarrier_wait(operands.full, 0);
  float sum[kWarpgroupSums];
  for (int i = 0; i < kWarpgroupSums; ++i) sum[i] = out[thread * kWarpgroupSums + i];
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const uint64_t of_a = wgmma_operand(operands.a, step), of_b = wgmma_operand(operands.b, step);
    const bool adds = step > 0 || add != 0;
    if (kKind == Kind::kBFloat16) wgmma_bfloat16(sum, of_a, of_b, adds);
    if (kKind == Kind::kFloat16) wgmma_float16(sum, of_a, of_b, adds);
    if (kKind == Kind::kTF32) wgmma_tf32(sum, of_a, of_b, adds);
    wgmma_commit();
  }
  wgmma_wait<1>();
  wgmma_wait<0>(sum);
  for (int i = 0; i < kWarpgroupSums; ++i) out[thread * kWarpgroupSums + i] = sum[i];
}

struct Handed {
  int value[2][kWarpgroupThreads];
};

// Two warpgroups, one of which gives registers to the other; each reverses its numbers.
__global__ void __launch_bounds__(2 * kWarpgroupThreads, 1) warpgroups(const int* in, int* out) {
  Handed& handed = shared_memory<Handed>();
  const int group = own_thread() / kWarpgroupThreads, own = own_thread() % kWarpgroupThreads;
  if (group == 0) {
    decrease_registers<40>();
  } else {
    increase_registers<232>();
  }
  handed.value[group][own] = in[own_thread()];
  named_barrier_sync(1 + group, kWarpgroupThreads);
  out[own_thread()] = handed.value[group][kWarpgroupThreads - 1 - own];
}

template <Kind kKind>
const char* product(const uint32_t* a, const uint32_t* b, int64_t add, float* out) {
  return usucl::test::call([&](Arrays& arrays) {
    const int size = kKind == Kind::kTF32 ? 4 : 2;
    const TensorMap map = tensor_map({arrays.in(a, kAnchors * kRowWords), kAnchors,
                                      kTileRowBytes / size, kTileRowBytes, size, kAnchors});
    launch<warpgroup_product<kKind>>(1, kWarpgroupThreads, sizeof(Operands), nullptr, map,
                                     arrays.in(b, kKeys * kRowWords), static_cast<int>(add),
                                     arrays.out(out, kWarpgroupThreads * kWarpgroupSums));
  });
}

}  // namespace

USUCL_ENTRY const char* run_phases(int64_t steps, int64_t threads, int32_t* out) {
  return usucl::test::call([&](Arrays& arrays) {
    launch<phases>(1, static_cast<int>(threads), sizeof(Ring), nullptr, static_cast<int>(steps),
                   arrays.out(out, steps * (threads - 1)));
  });
}

USUCL_ENTRY const char* load_tile(const uint32_t* words, int64_t rows, int64_t dim,
                                  int64_t row_bytes, int64_t element_bytes, int64_t row,
                                  int64_t column, uint32_t* out) {
  return usucl::test::call([&](Arrays& arrays) {
    const TensorMap map = tensor_map({arrays.in(words, rows * row_bytes / 4), rows, dim, row_bytes,
                                      static_cast<int>(element_bytes), kAnchors});
    launch<tile_load>(1, 64, sizeof(Tile), nullptr, map, static_cast<int>(row),
                      static_cast<int>(column), arrays.out(out, kAnchors * kRowWords));
  });
}

USUCL_ENTRY const char* product_bfloat16(const uint32_t* a, const uint32_t* b, int64_t add,
                                         float* out) {
  return product<Kind::kBFloat16>(a, b, add, out);
}

USUCL_ENTRY const char* product_float16(const uint32_t* a, const uint32_t* b, int64_t add,
                                        float* out) {
  return product<Kind::kFloat16>(a, b, add, out);
}

USUCL_ENTRY const char* product_tf32(const uint32_t* a, const uint32_t* b, int64_t add,
                                     float* out) {
  return product<Kind::kTF32>(a, b, add, out);
}

USUCL_ENTRY const char* turn_round(const int32_t* in, int32_t* out) {
  return usucl::test::call([&](Arrays& arrays) {
    launch<warpgroups>(1, 2 * kWarpgroupThreads, sizeof(Handed), nullptr,
                       arrays.in(in, 2 * kWarpgroupThreads),
                       arrays.out(out, 2 * kWarpgroupThreads));
  });
}
