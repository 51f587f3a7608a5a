// The same as nominate.cu on Hopper (sm_90a): one thread has the TMA copy tiles, two warpgroups
// multiply them by wgmma, each for half of the anchors and at its own pace, so that one compares
// while the other multiplies.
#include "nominate.h"
#include "wgmma_core.h"

namespace usucl::cuda {
namespace {

constexpr int kConsumers = 2;  // warpgroups; the one that copies comes behind them
constexpr int kConsumerWarps = kConsumers * kWarpgroupThreads / 32;
constexpr int kHopperThreads = (kConsumers + 1) * kWarpgroupThreads;
constexpr int kHopperStages = 4;
constexpr int kMaxMaps = 4;  // blocks of one element type

struct KeyMaps {
  TensorMap map[kMaxMaps];
};

struct Warpgroup {
  static constexpr int kThreads = kWarpgroupThreads;
  static constexpr int kRows = kTileAnchors / kConsumers;
  static __device__ int thread() { return static_cast<int>(threadIdx.x) % kThreads; }
  static __device__ int number() { return static_cast<int>(threadIdx.x) / kThreads; }
  static __device__ void sync() { named_barrier_sync(1 + number(), kThreads); }
};

struct HopperShared {
  Chunk<kTileKeys> key[kHopperStages];
  Mbarrier full[kHopperStages], empty[kHopperStages];
  Mbarrier anchors_full, anchors_empty;
  NominateShared<Warpgroup> nomination[kConsumers];
  Chunk<kTileAnchors> anchor[1];  // all chunks of a row: room for them follows

  static int64_t bytes(int chunks) {
    return static_cast<int64_t>(sizeof(HopperShared) + (chunks - 1) * sizeof(anchor));
  }
};

// Which stage a chunk is in, and the parity of that stage's phase.
struct Turn {
  int stage = 0, parity = 0;

  __device__ void next() {
    if (++stage < kHopperStages) return;
    stage = 0;
    parity ^= 1;
  }
};

template <typename Elements>
__device__ void copy_tiles(const Problem& problem, const DenseOperands& operands,
                           const KeySplits& splits, const TensorMap& anchors, const KeyMaps& keys,
                           HopperShared& shared) {
  constexpr int kColumns = kTileRowBytes / Elements::kBytes;
  Turn turn;
  int parity = 0;
  for_each_item(operands, splits, [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
    mbarrier_wait(shared.anchors_empty, parity ^ 1);
    parity ^= 1;
    mbarrier_arrive_expect_tx(shared.anchors_full,
                              operands.chunks * static_cast<int>(sizeof(shared.anchor[0])));
    for (int chunk = 0; chunk < operands.chunks; ++chunk) {
      tma_load(&shared.anchor[chunk], anchors, anchor_tile * kTileAnchors, chunk * kColumns,
               shared.anchors_full);
    }
    for (int32_t t = 0; t < tiles; ++t) {
      const KeyTile tile = key_tile(problem, Elements::kDType, first + t);
      for (int chunk = 0; chunk < operands.chunks; ++chunk, turn.next()) {
        Mbarrier& full = shared.full[turn.stage];
        mbarrier_wait(shared.empty[turn.stage], turn.parity ^ 1);
        mbarrier_arrive_expect_tx(full, sizeof(shared.key[0]));
        tma_load(&shared.key[turn.stage], keys.map[tile.number_of_block],
                 static_cast<int>(tile.row), chunk * kColumns, full);
      }
    }
  });
}

template <typename Elements>
__device__ void multiply_tiles(const Problem& problem, const DenseOperands& operands,
                               const DenseMemory& memory, const DensePlan& plan,
                               const KeySplits& splits, HopperShared& shared) {
  using Product = WarpgroupProduct<Elements>;
  const int team = Warpgroup::number();
  Nomination<Warpgroup, Product> nomination(problem, memory, plan, shared.nomination[team]);
  const auto release = [](Mbarrier& barrier) {
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  };
  Turn turn;
  int parity = 0;
  for_each_item(operands, splits, [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
    nomination.start(anchor_tile);
    mbarrier_wait(shared.anchors_full, parity);
    parity ^= 1;
    for (int32_t t = 0; t < tiles; ++t) {
      Product product;
      product.clear();
      int previous = 0;
      for (int chunk = 0; chunk < operands.chunks; ++chunk, turn.next()) {
        mbarrier_wait(shared.full[turn.stage], turn.parity);
        product.add(shared.anchor[chunk], team * Warpgroup::kRows, shared.key[turn.stage], 0);
        if (chunk > 0) {
          product.template wait<1>();
          release(shared.empty[previous]);
        }
        previous = turn.stage;
      }
      Warpgroup::sync();
      nomination.begin(t, key_tile(problem, Elements::kDType, first + t));
      product.finish();
      release(shared.empty[previous]);
      Warpgroup::sync();
      nomination.end(product, 0, 0);
    }
    release(shared.anchors_empty);
    nomination.finish();
  });
}

template <typename Elements>
__global__ void __launch_bounds__(kHopperThreads, 1)
    nominate_hopper_kernel(const __grid_constant__ DeviceProblem device,
                           const __grid_constant__ DenseOperands operands,
                           const __grid_constant__ DenseMemory memory,
                           const __grid_constant__ DensePlan plan, KeySplits splits,
                           const __grid_constant__ TensorMap anchors,
                           const __grid_constant__ KeyMaps keys) {
  HopperShared& shared = shared_memory<HopperShared>();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kHopperStages; ++stage) {
      mbarrier_init(shared.full[stage], 1);
      mbarrier_init(shared.empty[stage], kConsumerWarps);
    }
    mbarrier_init(shared.anchors_full, 1);
    mbarrier_init(shared.anchors_empty, kConsumerWarps);
    fence_mbarrier_init();
  }
  __syncthreads();
  const Problem problem = device.view();
  if (threadIdx.x < kConsumers * kWarpgroupThreads) {
    increase_registers<232>();
    multiply_tiles<Elements>(problem, operands, memory, plan, splits, shared);
  } else {
    decrease_registers<40>();
    if (threadIdx.x == kConsumers * kWarpgroupThreads) {
      copy_tiles<Elements>(problem, operands, splits, anchors, keys, shared);
    }
  }
}

TensorMap map_of(const void* data, int64_t rows, int64_t dim, DType elements, int tile_rows) {
  const auto bytes = static_cast<int>(bytes_of(elements));
  return tensor_map({data, rows, dim, dim * bytes, bytes, tile_rows});
}

}  // namespace

bool fits_warpgroups(DType elements, const Problem& problem, const DenseOperands& operands,
                     const Call& call) {
  if (!call.warpgroups || HopperShared::bytes(operands.chunks) > call.shared_bytes) return false;
  int64_t maps = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Matrix& keys = problem.blocks[b].embedding;
    if (keys.dtype != elements || keys.rows == 0) continue;
    const bool aligned = reinterpret_cast<uintptr_t>(keys.data) % kPieceBytes == 0 &&
                         keys.dim * bytes_of(elements) % kPieceBytes == 0;
    if (!aligned || keys.rows > INT32_MAX || ++maps > kMaxMaps) return false;
  }
  return true;
}

void nominate_by_warpgroups(DType elements, const Problem& problem, const DeviceProblem& device,
                            const DenseOperands& operands, const DenseMemory& memory,
                            const DensePlan& plan, const KeySplits& splits, int64_t grid,
                            const Call& call) {
  const int64_t columns = operands.chunks * kChunkBytes / bytes_of(elements);
  const TensorMap anchors = map_of(operands.anchors, int64_t{operands.anchor_tiles} * kTileAnchors,
                                   columns, elements, kTileAnchors);
  KeyMaps keys{};
  int64_t maps = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Matrix& block = problem.blocks[b].embedding;
    if (block.dtype != elements || block.rows == 0) continue;
    keys.map[maps++] = map_of(block.data, block.rows, block.dim, elements, kTileKeys);
  }
  with_elements(elements, [&](auto type) {
    launch<nominate_hopper_kernel<decltype(type)>>(
        grid, kHopperThreads, HopperShared::bytes(operands.chunks), call.stream, device, operands,
        memory, plan, splits, anchors, keys);
  });
}

}  // namespace usucl::cuda
