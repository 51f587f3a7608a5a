// The launches of a forward pass.
#include "passes.h"

namespace usucl::cuda {
namespace {

struct BlockTable {
  Frames block[kNearBlocks];
};

__global__ void __launch_bounds__(kThreads)
    write_table(const __grid_constant__ BlockTable blocks, int count, Frames* table) {
  for (int b = static_cast<int>(threadIdx.x); b < count; b += kThreads) table[b] = blocks.block[b];
}

template <typename T>
CandidateLists<T> cross_pass(const Problem& problem, const DeviceProblem& device,
                             const Call& call) {
  const int64_t depth = problem.cross.depth(problem.num_keys());
  if (depth == 0 || problem.anchors.embedding.rows == 0) return {nullptr, 0, 0, nullptr};
  if constexpr (sizeof(T) == sizeof(float)) {
    if (takes_dense_pass(problem, depth, call)) return dense_pass(problem, device, depth, call);
  }
  return chain_pass<T>(problem, device, depth, call);
}

template <typename T>
void run(const Problem& problem, const Outputs<T>& outputs, const Call& call) {
  const DeviceProblem device = on_device(problem, call);
  if (call.small_in_one_launch && is_small(problem)) {
    return small_problem(problem, device, outputs, call);
  }
  const CandidateLists<T> intra = intra_pass<T>(problem, device, call);
  const CandidateLists<T> cross = cross_pass<T>(problem, device, call);
  if (call.beside != nullptr) call.beside->join();
  finish(problem, device, intra, cross, outputs, call);
}

}  // namespace

DeviceProblem on_device(const Problem& problem, const Call& call) {
  DeviceProblem device{problem, {}};
  device.problem.blocks = nullptr;
  if (problem.num_blocks <= kNearBlocks) {
    std::copy_n(problem.blocks, problem.num_blocks, device.near);
    return device;
  }
  auto* table = call.memory.array<Frames>(problem.num_blocks);
  for (int64_t b = 0; b < problem.num_blocks; b += kNearBlocks) {
    BlockTable blocks = {};
    const int64_t count = std::min<int64_t>(problem.num_blocks - b, kNearBlocks);
    std::copy_n(problem.blocks + b, count, blocks.block);
    launch<write_table>(1, kThreads, 0, call.stream, blocks, static_cast<int>(count), table + b);
  }
  device.problem.blocks = table;
  return device;
}

template <typename T>
void select_negatives(const Problem& problem, const SelectionArrays<T>& out, const Call& call) {
  Outputs<T> outputs{};
  outputs.arrays.selection = out;
  run(problem, outputs, call);
}

template <typename T>
void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                       const LossArrays<T>& out, const Call& call) {
  const int64_t positives = problem.anchors.embedding.rows * arguments.num_positives;
  const bool near = arguments.num_positives <= kNearPositives;
  Problem limited = problem;
  if (arguments.margin != nullptr) {
    limited.limits = limits_by_positives(problem.anchors.embedding, arguments, call);
  }
  run(limited, Outputs<T>{arguments, out, near ? nullptr : call.memory.array<T>(positives)}, call);
}

#define USUCL_INSTANTIATE(T)                                                                     \
  template void select_negatives(const Problem&, const SelectionArrays<T>&, const Call&);        \
  template void hard_negative_nce(const Problem&, const LossArguments<T>&, const LossArrays<T>&, \
                                  const Call&);
USUCL_INSTANTIATE(float)
USUCL_INSTANTIATE(double)

}  // namespace usucl::cuda
