// Scores of anchors with keys by csrc/cuda/tensor_cores/wgmma_core.h: one thread has the TMA copy
// tiles, one warpgroup multiplies them, with three stages in between. For emulator and nvcc.
#include "cuda/tensor_cores/wgmma_core.h"
#include "on_device.h"

namespace {

using namespace usucl::cuda;
using usucl::test::Arrays;

constexpr int kStages = 3;
constexpr int kThreads = 2 * kWarpgroupThreads;
constexpr int kConsumerWarps = kWarpgroupThreads / 32;
constexpr int kAnchors = 64, kKeys = 128;

struct Stage {
  Chunk<kAnchors> anchors;
  Chunk<kKeys> keys;
};

struct Shared {
  Stage stage[kStages];
  Mbarrier full[kStages], empty[kStages];
};

// The stage of a chunk, counted over all key tiles.
struct Turn {
  int stage = 0, parity = 0;

  __device__ void next() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

struct Shape {
  int anchors, keys, chunks;
};

template <typename Elements>
__device__ void produce(Shared& shared, const TensorMap& anchors, const TensorMap& keys,
                        const Shape& shape) {
  constexpr int kColumns = kTileRowBytes / Elements::kBytes;
  Turn turn;
  for (int key = 0; key < shape.keys; key += kKeys) {
    for (int chunk = 0; chunk < shape.chunks; ++chunk, turn.next()) {
      Stage& stage = shared.stage[turn.stage];
      Mbarrier& full = shared.full[turn.stage];
      mbarrier_wait(shared.empty[turn.stage], turn.parity ^ 1);
      mbarrier_arrive_expect_tx(full, sizeof(Stage));
      tma_load(&stage.anchors, anchors, static_cast<int>(blockIdx.x) * kAnchors, chunk * kColumns,
               full);
      tma_load(&stage.keys, keys, key, chunk * kColumns, full);
    }
  }
}

// out [anchors, keys], greatest [anchors, key tiles, 4].
template <typename Elements>
__device__ void consume(Shared& shared, const Shape& shape, float* out, float* greatest) {
  using Product = WarpgroupProduct<Elements>;
  const int first_anchor = static_cast<int>(blockIdx.x) * kAnchors;
  const int tiles = (shape.keys + kKeys - 1) / kKeys;
  const auto release = [&](int stage) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(shared.empty[stage]);
  };
  Product product;
  Turn turn;
  for (int tile = 0; tile < tiles; ++tile) {
    product.clear();
    int previous = 0;
    for (int chunk = 0; chunk < shape.chunks; ++chunk, turn.next()) {
      Stage& stage = shared.stage[turn.stage];
      mbarrier_wait(shared.full[turn.stage], turn.parity);
      product.add(stage.anchors, 0, stage.keys, 0);
      if (chunk > 0) {
        product.template wait<1>();
        release(previous);
      }
      previous = turn.stage;
    }
    product.finish();
    release(previous);
    for_each(product, [&](int row, int column, float value) {
      const int anchor = first_anchor + row, key = tile * kKeys + column;
      if (anchor < shape.anchors && key < shape.keys) {
        out[int64_t{anchor} * shape.keys + key] = value;
      }
    });
    for (int r = 0; r < Product::kLaneRows; ++r) {
      const int anchor = first_anchor + Product::row(r);
      if (anchor >= shape.anchors) continue;
      float of_row = usucl::cuda::greatest(product, r, 0);
      for (int g = 1; g < Product::kGroups; ++g)
        of_row = fmaxf(of_row, usucl::cuda::greatest(product, r, g));
      greatest[(anchor * tiles + tile) * 4 + Product::column(0) / 2] = of_row;
    }
  }
}

template <typename Elements>
__global__ void __launch_bounds__(kThreads, 1)
    scores(const __grid_constant__ TensorMap anchors, const __grid_constant__ TensorMap keys,
           Shape shape, float* out, float* greatest) {
  Shared& shared = shared_memory<Shared>();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(shared.full[stage], 1);
      mbarrier_init(shared.empty[stage], kConsumerWarps);
    }
    fence_mbarrier_init();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroupThreads) {
    increase_registers<240>();
    consume<Elements>(shared, shape, out, greatest);
  } else {
    decrease_registers<40>();
    if (threadIdx.x == kWarpgroupThreads) produce<Elements>(shared, anchors, keys, shape);
  }
}

template <typename Elements>
const char* score(const uint32_t* anchors, int64_t num_anchors, const uint32_t* keys,
                  int64_t num_keys, int64_t dim, float* out, float* greatest) {
  return usucl::test::call([&](Arrays& arrays) {
    const int64_t row_bytes = dim * Elements::kBytes;
    const auto map = [&](const uint32_t* rows, int64_t count, int tile_rows) {
      return tensor_map({arrays.in(rows, count * row_bytes / 4), count, dim, row_bytes,
                         Elements::kBytes, tile_rows});
    };
    const Shape shape{static_cast<int>(num_anchors), static_cast<int>(num_keys),
                      static_cast<int>((row_bytes + kTileRowBytes - 1) / kTileRowBytes)};
    const int64_t tiles = (num_keys + kKeys - 1) / kKeys;
    launch<scores<Elements>>(
        (num_anchors + kAnchors - 1) / kAnchors, kThreads, sizeof(Shared), nullptr,
        map(anchors, num_anchors, kAnchors), map(keys, num_keys, kKeys), shape,
        arrays.out(out, num_anchors * num_keys), arrays.out(greatest, num_anchors * tiles * 4));
  });
}

}  // namespace

#define USUCL_SCORES(name, Elements)                                                               \
  USUCL_ENTRY const char* name(const uint32_t* anchors, int64_t num_anchors, const uint32_t* keys, \
                               int64_t num_keys, int64_t dim, float* out, float* greatest) {       \
    return score<Elements>(anchors, num_anchors, keys, num_keys, dim, out, greatest);              \
  }
USUCL_SCORES(scores_bfloat16, BFloat16Elements)
USUCL_SCORES(scores_float16, Float16Elements)
USUCL_SCORES(scores_tf32, TF32Elements)
