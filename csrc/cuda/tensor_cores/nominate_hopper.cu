// nominate.cu for Hopper (sm_90a): one thread has the TMA copy tiles, and two warpgroups multiply
// them by wgmma, half of the anchors each. They take turns at the tensor cores: while one
// multiplies, the other compares.
#include "nominator.h"
#include "wgmma_core.h"

namespace usucl::cuda {
namespace {

constexpr int kConsumers = 2;  // warpgroups; the copying one comes after them
constexpr int kConsumerWarps = kConsumers * kWarpgroupThreads / 32;
constexpr int kWarpgroupWarps = kWarpgroupThreads / 32;
constexpr int kHopperThreads = (kConsumers + 1) * kWarpgroupThreads;
constexpr int kFewestHopperStages = 4, kMostHopperStages = 8;
constexpr int kMaxMaps = 4;  // blocks per element type

struct KeyMaps {
  TensorMap map[kMaxMaps];
};

// Each warpgroup takes half of the thread block's 128 kBlocks anchors.
template <typename Elements, int kBlocks>
struct HopperShared {
  using Product = WarpgroupProduct<Elements, kBlocks>;
  using Anchors = Chunk<kConsumers * Product::kRows>;

  Mbarrier full[kMostHopperStages], empty[kMostHopperStages];
  Mbarrier anchors_full, anchors_empty;
  Mbarrier turn[kConsumers];  // one per warpgroup, at the tensor cores
  NominatorShared<Product> nominator[kConsumerWarps];
  Chunk<kTileKeys> key[1];  // the other stages follow here, then all chunks of the anchors

  __device__ Anchors& anchors(int chunk, int stages) {
    return reinterpret_cast<Anchors*>(key + stages)[chunk];
  }

  static int64_t bytes(int chunks, int stages) {
    return static_cast<int64_t>(sizeof(HopperShared) + (stages - 1) * sizeof(key) +
                                chunks * sizeof(Anchors));
  }
};

// The stage of a chunk, and the parity of that stage's phase.
struct Turn {
  int stage = 0, parity = 0;

  __device__ void next(int stages) {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

template <typename Elements, int kBlocks>
__device__ void copy_tiles(const DenseOperands& operands, int32_t anchor_tiles,
                           const KeySplits& splits, const TensorMap& anchors, const KeyMaps& keys,
                           HopperShared<Elements, kBlocks>& shared) {
  using Shared = HopperShared<Elements, kBlocks>;
  constexpr int kAnchors = kConsumers * Shared::Product::kRows;
  constexpr int kColumns = kTileRowBytes / Elements::kBytes;
  Turn turn;
  int parity = 0;
  for_each_item(
      anchor_tiles, operands.tiles, splits, [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
        mbarrier_wait(shared.anchors_empty, parity ^ 1);
        parity ^= 1;
        mbarrier_arrive_expect_tx(
            shared.anchors_full,
            operands.chunks * static_cast<int>(sizeof(typename Shared::Anchors)));
        for (int chunk = 0; chunk < operands.chunks; ++chunk) {
          tma_load(&shared.anchors(chunk, operands.stages), anchors, anchor_tile * kAnchors,
                   chunk * kColumns, shared.anchors_full);
        }
        for (int32_t t = 0; t < tiles; ++t) {
          const KeyTile& tile = operands.tile[first + t];
          const int row = tile.row, block = tile.block;
          for (int chunk = 0; chunk < operands.chunks; ++chunk, turn.next(operands.stages)) {
            Mbarrier& full = shared.full[turn.stage];
            mbarrier_wait(shared.empty[turn.stage], turn.parity ^ 1);
            mbarrier_arrive_expect_tx(full, sizeof(shared.key[0]));
            tma_load(shared.key + turn.stage, keys.map[block], row, chunk * kColumns, full);
          }
        }
      });
}

template <typename Elements, int kBlocks>
__device__ void multiply_tiles(const Problem& problem, const DenseOperands& operands,
                               int32_t anchor_tiles, const DenseMemory& memory,
                               const DensePlan& plan, const KeySplits& splits,
                               HopperShared<Elements, kBlocks>& shared) {
  using Product = typename HopperShared<Elements, kBlocks>::Product;
  // The shuffle tells the compiler that the value is uniform in a warp: descriptors of operands are
  // then computed once per warp.
  const int team = __shfl_sync(kWholeWarp, static_cast<int>(threadIdx.x) / kWarpgroupThreads, 0);
  Nominator<Product> nominator(problem, operands, memory, plan, shared.nominator[warp()]);
  const auto arrive = [](Mbarrier& barrier) {
    if (lane() == 0) mbarrier_arrive(barrier);
  };
  Turn turn;
  int parity = 0;
  // The first warpgroup begins; each then waits until the other has begun the preceding ones. If
  // not all chunks of a tile fit, the other could wait for one that this one still needs.
  const bool takes_turns = operands.chunks <= operands.stages;
  int turn_parity = team == 0 ? 1 : 0;
  for_each_item(
      anchor_tiles, operands.tiles, splits, [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
        nominator.start((int64_t{anchor_tile} * kConsumers + team) * Product::kRows);
        mbarrier_wait(shared.anchors_full, parity);
        parity ^= 1;
        for (int32_t t = 0; t < tiles; ++t) {
          const KeyTile tile = operands.tile[first + t];
          Product product;
          product.clear();
          if (takes_turns) mbarrier_wait(shared.turn[team], turn_parity);
          turn_parity ^= 1;
          int previous = 0;
          for (int chunk = 0; chunk < operands.chunks; ++chunk, turn.next(operands.stages)) {
            mbarrier_wait(shared.full[turn.stage], turn.parity);
            product.add(shared.anchors(chunk, operands.stages), team * Product::kRows,
                        shared.key[turn.stage], 0);
            if (takes_turns && chunk + 1 == operands.chunks) arrive(shared.turn[1 - team]);
            if (chunk > 0) {
              product.template wait<1>();
              arrive(shared.empty[previous]);
            }
            previous = turn.stage;
          }
          product.finish();
          arrive(shared.empty[previous]);
          nominator.add(product, first + t, tile, 0);
        }
        arrive(shared.anchors_empty);
        nominator.finish();
      });
}

template <typename Elements, int kBlocks>
__global__ void __launch_bounds__(kHopperThreads, 1)
    nominate_hopper_kernel(const __grid_constant__ DeviceProblem device,
                           const __grid_constant__ DenseOperands operands, int32_t anchor_tiles,
                           const __grid_constant__ DenseMemory memory,
                           const __grid_constant__ DensePlan plan, KeySplits splits,
                           const __grid_constant__ TensorMap anchors,
                           const __grid_constant__ KeyMaps keys) {
  auto& shared = shared_memory<HopperShared<Elements, kBlocks>>();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < operands.stages; ++stage) {
      mbarrier_init(shared.full[stage], 1);
      mbarrier_init(shared.empty[stage], kConsumerWarps);
    }
    mbarrier_init(shared.anchors_full, 1);
    mbarrier_init(shared.anchors_empty, kConsumerWarps);
    for (Mbarrier& turn : shared.turn) mbarrier_init(turn, kWarpgroupWarps);
    fence_mbarrier_init();
  }
  __syncthreads();
  const Problem problem = device.view();
  if (threadIdx.x < kConsumers * kWarpgroupThreads) {
    increase_registers<232>();
    multiply_tiles<Elements, kBlocks>(problem, operands, anchor_tiles, memory, plan, splits,
                                      shared);
  } else {
    decrease_registers<40>();
    if (threadIdx.x == kConsumers * kWarpgroupThreads) {
      copy_tiles<Elements, kBlocks>(operands, anchor_tiles, splits, anchors, keys, shared);
    }
  }
}

TensorMap map_of(const void* data, int64_t rows, int64_t dim, DType elements, int tile_rows) {
  const auto bytes = static_cast<int>(bytes_of(elements));
  return tensor_map({data, rows, dim, dim * bytes, bytes, tile_rows});
}

// The number of stages that fit; fewer than kFewestHopperStages are too few.
template <int kBlocks>
int stages_that_fit(int chunks, const Call& call) {
  using Shared = HopperShared<BFloat16Elements, kBlocks>;
  int stages = kMostHopperStages;
  while (stages > 0 && Shared::bytes(chunks, stages) > call.shared_bytes) --stages;
  return stages;
}

template <typename Elements, int kBlocks>
void launch_hopper(const Problem& problem, const DeviceProblem& device, DenseOperands operands,
                   const DenseMemory& memory, const DensePlan& plan, const Call& call) {
  constexpr int kAnchors = kTileAnchors * kBlocks;
  operands.stages = stages_that_fit<kBlocks>(operands.chunks, call);
  const int32_t anchor_tiles = ceil_divide(operands.anchor_tiles, kBlocks);
  const KeySplits splits = split_keys(operands.tiles, call.multiprocessors / anchor_tiles, 1);
  const int64_t grid =
      std::min<int64_t>(int64_t{anchor_tiles} * splits.count, call.multiprocessors);
  const int64_t columns = operands.chunks * kChunkBytes / Elements::kBytes;
  const TensorMap anchors = map_of(operands.anchors, int64_t{operands.anchor_tiles} * kTileAnchors,
                                   columns, Elements::kDType, kAnchors);
  KeyMaps keys{};
  int64_t maps = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Matrix& block = problem.blocks[b].embedding;
    if (block.dtype != Elements::kDType || block.rows == 0) continue;
    keys.map[maps++] = map_of(block.data, block.rows, block.dim, Elements::kDType, kTileKeys);
  }
  launch<nominate_hopper_kernel<Elements, kBlocks>>(
      grid, kHopperThreads,
      HopperShared<Elements, kBlocks>::bytes(operands.chunks, operands.stages), call.stream, device,
      operands, anchor_tiles, memory, plan, splits, anchors, keys);
}

// Twice as many anchors per thread block halve the reads of the keys.
bool takes_two_blocks(const DenseOperands& operands, const Call& call) {
  return operands.anchor_tiles > 1 &&
         stages_that_fit<2>(operands.chunks, call) >= kFewestHopperStages;
}

}  // namespace

bool fits_warpgroups(DType elements, const Problem& problem, const DenseOperands& operands,
                     const Call& call) {
  if (!call.warpgroups || stages_that_fit<1>(operands.chunks, call) < kFewestHopperStages) {
    return false;
  }
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
                            const DensePlan& plan, const Call& call) {
  with_elements(elements, [&](auto type) {
    using Elements = decltype(type);
    if (takes_two_blocks(operands, call)) {
      launch_hopper<Elements, 2>(problem, device, operands, memory, plan, call);
    } else {
      launch_hopper<Elements, 1>(problem, device, operands, memory, plan, call);
    }
  });
}

}  // namespace usucl::cuda
