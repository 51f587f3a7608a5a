// Every anchor with every key by mma.sync: on any GPU from compute capability 8.0 on.
#include "nominate.h"

namespace usucl::cuda {
namespace {

// All threads of a block, for a whole tile of anchors.
struct WholeBlock {
  static constexpr int kThreads = kDenseThreads;
  static constexpr int kRows = kTileAnchors;
  static __device__ int thread() { return static_cast<int>(threadIdx.x); }
  static __device__ int number() { return 0; }
  static __device__ void sync() { __syncthreads(); }
};

struct BlockShared {
  NominateShared<WholeBlock> nomination;
  TileMemory tiles;
};

template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, kDenseBlocks)
    nominate_kernel(const __grid_constant__ DeviceProblem device,
                    const __grid_constant__ DenseOperands operands,
                    const __grid_constant__ DenseMemory memory,
                    const __grid_constant__ DensePlan plan, KeySplits splits) {
  BlockShared& shared = shared_memory<BlockShared>();
  const Problem problem = device.view();
  using Sweep = DenseSweep<Elements>;
  Sweep sweep(problem, operands, shared.tiles);
  Nomination<WholeBlock, typename Sweep::Product> nomination(problem, memory, plan,
                                                             shared.nomination);
  for_each_item(operands, splits, [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
    nomination.start(anchor_tile);
    sweep.run(
        anchor_tile, first, tiles,
        [&](int32_t tile, const KeyTile& keys) { nomination.begin(tile, keys); },
        [&](const auto& product) {
          nomination.end(product, Sweep::first_row(), Sweep::first_column());
        });
    nomination.finish();
  });
}

}  // namespace

int64_t nominate_shared_bytes(const DenseOperands& operands) {
  return static_cast<int64_t>(sizeof(BlockShared)) + TileMemory::bytes_beyond(operands);
}

void nominate(DType elements, const DeviceProblem& device, const DenseOperands& operands,
              const DenseMemory& memory, const DensePlan& plan, const KeySplits& splits,
              int64_t grid, const Call& call) {
  with_elements(elements, [&](auto type) {
    launch<nominate_kernel<decltype(type)>>(grid, kDenseThreads, nominate_shared_bytes(operands),
                                            call.stream, device, operands, memory, plan, splits);
  });
}

}  // namespace usucl::cuda
