// Products of one tile of 128 anchors with one of 128 keys through
// csrc/cuda/tensor_cores/mma_core.h, with chunks copied asynchronously two ahead, as in the dense
// pass. For the emulator and for nvcc.
#include "cuda/tensor_cores/mma_core.h"

#include "on_device.h"

namespace {

using namespace usucl::cuda;
using usucl::test::Arrays;

constexpr int kRows = 128;
constexpr int kThreads = 256;
constexpr int kStages = 3;

struct Shared {
  Chunk<kRows> anchor[kStages];
  Chunk<kRows> key[kStages];
};

// What a test omits.
enum class Bug { kNone, kNoWait, kNoBarrier, kNoBarrierBeforeReuse };

// anchors, keys: [kRows, chunks] in pieces of 16 bytes; only the first `keys_there` keys exist.
template <typename Elements, Bug kBug>
__global__ void __launch_bounds__(kThreads, 2)
    tile_product(const Piece* anchors, const Piece* keys, int chunks, int keys_there, float* out) {
  Shared& shared = shared_memory<Shared>();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int first_row = warp / 4 * 64, first_key = warp % 4 * 32;
  const auto copy = [&](int chunk) {
    if (chunk < chunks) {
      for (int i = static_cast<int>(threadIdx.x); i < kRows * kChunkPieces; i += kThreads) {
        const int row = i / kChunkPieces, piece = i % kChunkPieces;
        const int64_t from = (int64_t{row} * chunks + chunk) * kChunkPieces + piece;
        copy_async_16(&shared.anchor[chunk % kStages].at(row, piece), anchors + from, true);
        const bool there = row < keys_there;
        copy_async_16(&shared.key[chunk % kStages].at(row, piece), there ? keys + from : keys,
                      there);
      }
    }
    copy_async_commit();
  };
  WarpProduct<Elements> product;
  product.clear();
  for (int chunk = 0; chunk + 1 < kStages; ++chunk) copy(chunk);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    if (kBug != Bug::kNoWait) copy_async_wait<kStages - 2>();
    if (kBug != Bug::kNoBarrier) __syncthreads();
    if (kBug != Bug::kNoBarrierBeforeReuse) copy(chunk + kStages - 1);
    product.add(shared.anchor[chunk % kStages], first_row, shared.key[chunk % kStages], first_key);
    // Overwrites the chunk that other warps may still be multiplying.
    if (kBug == Bug::kNoBarrierBeforeReuse) copy(chunk + kStages);
  }
  copy_async_wait<0>();
  for_each(product, [&](int row, int column, float value) {
    out[(first_row + row) * kRows + first_key + column] = value;
  });
}

template <typename Elements, Bug kBug = Bug::kNone>
const char* multiply(const uint32_t* anchors, const uint32_t* keys, int64_t chunks,
                     int64_t keys_there, float* out) {
  constexpr int64_t kWords = kChunkBytes / sizeof(uint32_t);
  return usucl::test::call([&](Arrays& arrays) {
    launch<tile_product<Elements, kBug>>(
        1, kThreads, sizeof(Shared), nullptr,
        reinterpret_cast<const Piece*>(arrays.in(anchors, kRows * chunks * kWords)),
        reinterpret_cast<const Piece*>(arrays.in(keys, keys_there * chunks * kWords)),
        static_cast<int>(chunks), static_cast<int>(keys_there), arrays.out(out, kRows * kRows));
  });
}

}  // namespace

#define USUCL_PRODUCT(name, ...)                                                              \
  USUCL_ENTRY const char* name(const uint32_t* anchors, const uint32_t* keys, int64_t chunks, \
                               int64_t keys_there, float* out) {                              \
    return multiply<__VA_ARGS__>(anchors, keys, chunks, keys_there, out);                     \
  }
USUCL_PRODUCT(product_bfloat16, BFloat16Elements)
USUCL_PRODUCT(product_float16, Float16Elements)
USUCL_PRODUCT(product_tf32, TF32Elements)
#if defined(USUCL_EMULATION)
USUCL_PRODUCT(no_wait, BFloat16Elements, Bug::kNoWait)
USUCL_PRODUCT(no_barrier, BFloat16Elements, Bug::kNoBarrier)
USUCL_PRODUCT(no_barrier_before_reuse, BFloat16Elements, Bug::kNoBarrierBeforeReuse)
#endif
