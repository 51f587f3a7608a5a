// Every anchor with every key by mma.sync: for any GPU of compute capability 8.0 or later.
#include "nominator.h"

namespace usucl::cuda {
namespace {

template <typename Elements>
using WarpNominator = Nominator<WarpProduct<Elements>>;

template <typename Elements>
struct BlockShared {
  typename WarpNominator<Elements>::Shared nominator[kDenseThreads / 32];
  TileMemory tiles;

  static int64_t bytes(const DenseOperands& operands) {
    return static_cast<int64_t>(sizeof(BlockShared)) + TileMemory::bytes_beyond(operands);
  }
};

template <typename Elements>
__global__ void __launch_bounds__(kDenseThreads, kDenseBlocks)
    nominate_kernel(const __grid_constant__ DeviceProblem device,
                    const __grid_constant__ DenseOperands operands,
                    const __grid_constant__ DenseMemory memory,
                    const __grid_constant__ DensePlan plan, KeySplits splits) {
  using Sweep = DenseSweep<Elements>;
  auto& shared = shared_memory<BlockShared<Elements>>();
  const Problem problem = device.view();
  Sweep sweep(operands, shared.tiles);
  WarpNominator<Elements> nominator(problem, operands, memory, plan, shared.nominator[warp()]);
  const int64_t row_bytes = int64_t{operands.dim} * Elements::kBytes;
  const auto rows_of = [&](int32_t tile) { return TileRows(operands.tile[tile], row_bytes); };
  const auto begin = [](int32_t) {};
  const auto end = [&](int32_t tile, const auto& product) {
    nominator.add(product, tile, operands.tile[tile], Sweep::first_column());
  };
  for_each_item(operands.anchor_tiles, operands.tiles, splits,
                [&](int32_t anchor_tile, int32_t first, int32_t tiles) {
                  __syncthreads();  // the previous item's tiles are multiplied
                  nominator.start(int64_t{anchor_tile} * kTileAnchors + Sweep::first_row());
                  sweep.run(anchor_tile, first, tiles, rows_of, begin, end);
                  nominator.finish();
                });
}

}  // namespace

int64_t nominate_shared_bytes(const DenseOperands& operands) {
  return BlockShared<BFloat16Elements>::bytes(operands);
}

void nominate(DType elements, const DeviceProblem& device, const DenseOperands& operands,
              const DenseMemory& memory, const DensePlan& plan, const Call& call) {
  // All thread blocks that run at once need work.
  const int64_t at_once = 2 * call.multiprocessors;
  const KeySplits splits = split_keys(operands.tiles, at_once / operands.anchor_tiles, 1);
  const int64_t grid = std::min<int64_t>(int64_t{operands.anchor_tiles} * splits.count, at_once);
  with_elements(elements, [&](auto type) {
    launch<nominate_kernel<decltype(type)>>(grid, kDenseThreads, nominate_shared_bytes(operands),
                                            call.stream, device, operands, memory, plan, splits);
  });
}

}  // namespace usucl::cuda
