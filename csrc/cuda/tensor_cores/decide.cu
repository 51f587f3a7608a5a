// Turns nominees into candidates: the chain scores those near enough to the last rank.
#include "../../core/relation.h"
#include "dense.h"

namespace usucl::cuda {
namespace {

constexpr int kWarps = kThreads / 32;
constexpr int kStagedDims = 256;
constexpr int kStagedNominees = 512;

struct DecideShared {
  float anchor[kWarps][kStagedDims];
  uint32_t histogram[kWarps][kDigits];
  Nominee nominee[kWarps][kStagedNominees];
};

// The work of one warp on one anchor.
class Decision {
 public:
  __device__ Decision(const Problem& problem, const DenseMemory& memory, const DensePlan& plan,
                      const CandidateLists<float>& kept, DecideShared& shared)
      : problem_(problem),
        memory_(memory),
        plan_(plan),
        kept_(kept),
        anchor_(shared.anchor[warp()]),
        histogram_(shared.histogram[warp()]),
        staged_(shared.nominee[warp()]) {}

  __device__ void run(int64_t i) {
    greatest_ = problem_.greatest_valid<float>(i);
    const AnchorStart start = memory_.start[i];
    Nominee* nominees = memory_.pool + i * plan_.pool_capacity;
    int count = memory_.pool_count[i];
    bool settled = !(start.margin == INFINITY) && count <= plan_.pool_capacity;
    if (settled) {
      nominees = staged(nominees, count);
      settled = reaches_bar(nominees, count, start);
    }
    if (settled) {
      count = near_the_last_rank(nominees, count, start.margin);
      settled = count <= kept_.depth;
    }
    if (memory_.statistics != nullptr && lane() == 0) {
      if (settled) atomicAdd(&memory_.statistics->nominees, static_cast<unsigned long long>(count));
      if (!settled) atomicAdd(&memory_.statistics->unsettled, 1ull);
    }
    if (settled) {
      count = write_candidates(i, nominees, count);
      if (lane() == 0) kept_.count[i] = count;
    } else if (lane() == 0) {
      memory_.unsettled[atomicAdd(memory_.num_unsettled, 1)] = static_cast<int32_t>(i);
    }
  }

 private:
  // Stages nominees in shared memory if they fit, because they are read several times.
  __device__ Nominee* staged(Nominee* nominees, int count) {
    if (count > kStagedNominees) return nominees;
    __syncwarp();  // the previous anchor's are decided
    for (int n = lane(); n < count; n += 32) staged_[n] = nominees[n];
    __syncwarp();
    return staged_;
  }

  // Whether `depth` nominees that surely count reach the bar: then no other key can be among the
  // hardest. Without a bar every key was nominated.
  __device__ bool reaches_bar(const Nominee* nominees, int count, const AnchorStart& start) const {
    if (start.bar == -INFINITY) return true;
    int reach = 0;
    for (int n = lane(); n < count; n += 32) {
      const float score = nominees[n].score;
      reach += score >= start.bar && surely_counts(score, start.margin, greatest_);
    }
    return WarpTeam::sum(reach) >= plan_.depth;
  }

  __device__ int near_the_last_rank(Nominee* nominees, int count, float margin) {
    const auto score = [&](int64_t n) {
      const float score = nominees[n].score;
      return surely_counts(score, margin, greatest_) ? score : -INFINITY;
    };
    const float bar = nearly_kth_greatest(score, count, plan_.depth, histogram_);
    const float limit = limit_of(bar, margin);
    return keep_those(nominees, count, [&](const Nominee& n) { return n.score >= limit; });
  }

  // The similarity for each lane that has a key; all lanes take part.
  __device__ float similarity(int64_t i, const KeyPlace& key, bool there) {
    const Matrix& anchors = problem_.anchors.embedding;
    float sum = 0;
    for (int64_t start = 0; start < anchors.dim; start += kStagedDims) {
      const int64_t rest = anchors.dim - start;
      const int width = static_cast<int>(rest < kStagedDims ? rest : kStagedDims);
      __syncwarp();
      for (int d = lane(); d < width; d += 32) {
        anchor_[d] = element<float>(anchors, i, start + d);
      }
      __syncwarp();
      if (there) sum = continue_chain(sum, anchor_, key.block->embedding, key.row, start, width);
    }
    return canonical(sum);
  }

  __device__ int write_candidates(int64_t i, const Nominee* nominees, int count) {
    int written = 0;
    for (int first = 0; first < count; first += 32) {
      const bool there = first + lane() < count;
      const int64_t index = there ? nominees[first + lane()].key : 0;
      const KeyPlace key = place_of(problem_.blocks, index);
      const float found = similarity(i, key, there);
      const bool counts = there && valid_similarity(found, greatest_);
      const unsigned counting = __ballot_sync(kWholeWarp, counts);
      if (counts) kept_.of(i)[written + place_among(counting)] = {found, index};
      written += __popc(counting);
    }
    return written;
  }

  const Problem& problem_;
  const DenseMemory& memory_;
  const DensePlan& plan_;
  const CandidateLists<float>& kept_;
  float* anchor_;  // [kStagedDims] of this warp
  uint32_t* histogram_;
  Nominee* staged_;     // [kStagedNominees] of this warp
  float greatest_ = 0;  // allowed similarity of a negative
};

__global__ void __launch_bounds__(kThreads, kHeavyBlocks<float>)
    decide_kernel(const __grid_constant__ DeviceProblem device,
                  const __grid_constant__ DenseMemory memory,
                  const __grid_constant__ DensePlan plan,
                  const __grid_constant__ CandidateLists<float> kept) {
  const Problem problem = device.view();
  Decision decision(problem, memory, plan, kept, shared_memory<DecideShared>());
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t i = blockIdx.x * kWarps + warp(); i < problem.anchors.embedding.rows; i += step) {
    decision.run(i);
  }
}

}  // namespace

void decide(const Problem& problem, const DeviceProblem& device, const DenseMemory& memory,
            const DensePlan& plan, const CandidateLists<float>& kept, const Call& call) {
  launch<decide_kernel>(grid_for(problem.anchors.embedding.rows, kWarps, call), kThreads,
                        sizeof(DecideShared), call.stream, device, memory, plan, kept);
}

}  // namespace usucl::cuda
