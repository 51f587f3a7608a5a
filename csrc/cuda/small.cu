// A small problem in one launch, whose overhead is most of its cost: a thread block per anchor,
// with its candidates in shared memory.
#include "../core/relation.h"
#include "finish.h"

namespace usucl::cuda {
namespace {

constexpr int kSmallKeys = 2048;                      // their candidates fit in shared memory
constexpr int64_t kSmallProducts = int64_t{1} << 24;  // N * M * D: above it, sharing keys pays

template <typename T>
struct SmallShared {
  Candidate<T> candidate[kSmallKeys];  // intra-video keys from the front, others from the end
  int num_intra;
  int num_cross;
  FinishShared<T, BlockTeam> finish;
};

// Writes the candidates of anchor i to shared memory.
template <typename T>
__device__ void find_candidates(const Problem& problem, int64_t i, SmallShared<T>& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  // Last read before the previous anchor's sort, next added to after a barrier in score().
  if (thread == 0) shared.num_intra = shared.num_cross = 0;
  const FrameTag tag = problem.anchors.tag(i);
  const Window window = problem.window(i);
  const T greatest = problem.greatest_valid<T>(i);
  int64_t first_index = 0;
  bool staged = false;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Frames& keys = problem.blocks[b];
    for (int64_t first = 0; first < keys.embedding.rows; first += kThreads) {
      const int64_t row = first + thread;
      const bool there = row < keys.embedding.rows;
      const Candidate<T> candidate{shared.finish.anchor.score(problem.anchors.embedding, i,
                                                              keys.embedding, row, there, staged),
                                   first_index + row};
      staged = true;
      if (!there || !valid_similarity(candidate.similarity, greatest)) continue;
      const Relation found = relation(tag, keys.tag(row), window);
      if (found == Relation::kIntraVideo && problem.intra.k > 0) {
        shared.candidate[atomicAdd(&shared.num_intra, 1)] = candidate;
      } else if (found == Relation::kCrossVideo && problem.cross.k > 0) {
        shared.candidate[kSmallKeys - 1 - atomicAdd(&shared.num_cross, 1)] = candidate;
      }
    }
    first_index += keys.embedding.rows;
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(kThreads, kHeavyBlocks<T>)
    small_kernel(const __grid_constant__ DeviceProblem device,
                 const __grid_constant__ Outputs<T> outputs) {
  SmallShared<T>& shared = shared_memory<SmallShared<T>>();
  const Problem problem = device.view();
  for (int64_t i = blockIdx.x; i < problem.anchors.embedding.rows; i += gridDim.x) {
    find_candidates(problem, i, shared);
    const SortedCandidates<T> intra{shared.candidate, shared.num_intra};
    const SortedCandidates<T> cross{shared.candidate + kSmallKeys - shared.num_cross,
                                    shared.num_cross};
    sort_candidates<BlockTeam>(shared.candidate, intra.count);
    sort_candidates<BlockTeam>(shared.candidate + kSmallKeys - cross.count, cross.count);
    AnchorFinish<T, BlockTeam>(problem, outputs, i, shared.finish)
        .run(intra, cross, problem.num_keys() > 0);
  }
}

}  // namespace

bool is_small(const Problem& problem) {
  const int64_t keys = problem.num_keys();
  return keys <= kSmallKeys &&
         problem.anchors.embedding.rows * keys <=
             kSmallProducts / std::max<int64_t>(1, problem.anchors.embedding.dim);
}

template <typename T>
void small_problem(const Problem& problem, const DeviceProblem& device, const Outputs<T>& outputs,
                   const Call& call) {
  launch<small_kernel<T>>(grid_for(problem.anchors.embedding.rows, 1, call), kThreads,
                          sizeof(SmallShared<T>), call.stream, device, outputs);
}

template void small_problem(const Problem&, const DeviceProblem&, const Outputs<float>&,
                            const Call&);
template void small_problem(const Problem&, const DeviceProblem&, const Outputs<double>&,
                            const Call&);

}  // namespace usucl::cuda
