// The end of one anchor's forward pass: from its sorted candidates to selection, loss, gradient.
#pragma once

#include "block.h"
#include "passes.h"

namespace usucl::cuda {

template <typename T>
struct FinishShared {
  StagedAnchor<T> anchor;
  T positive[kNearPositives];
  int broken;
};

// Sorted; may end with no_candidate()s.
template <typename T>
struct Ranked {
  const Candidate<T>* candidates;
  int64_t count;
};

// One thread block's work on anchor i.
template <typename T>
class AnchorFinish {
 public:
  __device__ AnchorFinish(const Problem& problem, const Wanted<T>& wanted, int64_t i,
                          FinishShared<T>& shared)
      : problem_(problem), wanted_(wanted), i_(i), shared_(shared) {}

  // staged: the anchor is in shared memory.
  __device__ void run(const Ranked<T>& intra, const Ranked<T>& cross, bool staged) {
    const SelectionArrays<T>& selection = wanted_.out.selection;
    const bool with_loss = wanted_.out.loss != nullptr;
    T* positive = wanted_.positive_similarity == nullptr
                      ? shared_.positive
                      : wanted_.positive_similarity + i_ * wanted_.arguments.num_positives;
    const bool broken = with_loss && score_positives(positive, staged);
    write_ranks(intra, problem_.intra, broken, selection.intra_index, selection.intra_similarity);
    write_ranks(cross, problem_.cross, broken, selection.cross_index, selection.cross_similarity);
    if (!with_loss) return;
    __syncthreads();
    if (threadIdx.x < WarpTeam::kSize) {
      finish_row<WarpTeam>(problem_, wanted_.arguments, i_, positive, broken, wanted_.out);
    }
    __syncthreads();
    if (wanted_.out.anchor_gradient != nullptr) write_gradient();
  }

 private:
  static __device__ bool finite(T value) { return value - value == T(0); }

  // Whether the anchor or the similarity of a positive is not finite.
  __device__ bool score_positives(T* positive, bool staged) {
    const Matrix& anchors = problem_.anchors.embedding;
    const int64_t num_positives = wanted_.arguments.num_positives;
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) shared_.broken = 0;  // last read before the loss of the anchor before
    __syncthreads();
    bool all_finite = true;
    for (int64_t d = thread; d < anchors.dim; d += kThreads) {
      all_finite &= finite(element<T>(anchors, i_, d));
    }
    for (int64_t first = 0; first < num_positives; first += kThreads) {
      const int64_t r = first + thread;
      const T similarity =
          shared_.anchor.score(anchors, i_, wanted_.arguments.positives, i_ * num_positives + r,
                               r < num_positives, staged || first > 0);
      if (r >= num_positives) continue;
      positive[r] = similarity;
      all_finite &= finite(similarity);
    }
    if (!all_finite) atomicMax(&shared_.broken, 1);
    __syncthreads();
    return shared_.broken != 0;
  }

  __device__ void write_ranks(const Ranked<T>& ranked, const Ranks& ranks, bool none,
                              int64_t* index, T* similarity) const {
    for (int64_t rank = threadIdx.x; rank < ranks.k; rank += kThreads) {
      Candidate<T> found = no_candidate<T>();
      if (!none && ranks.skip < ranked.count && rank < ranked.count - ranks.skip) {
        found = ranked.candidates[ranks.skip + rank];
      }
      const bool taken = found.index != no_candidate<T>().index;
      index[i_ * ranks.k + rank] = taken ? found.index : -1;
      similarity[i_ * ranks.k + rank] = found.similarity;
    }
  }

  // The sum of weight * row over the positives, then the intra-video, then the cross-video
  // negatives: one thread a dimension.
  __device__ void write_gradient() const {
    const LossArguments<T>& arguments = wanted_.arguments;
    const LossArrays<T>& out = wanted_.out;
    const int64_t dim = problem_.anchors.embedding.dim, num_positives = arguments.num_positives;
    for (int64_t d = threadIdx.x; d < dim; d += kThreads) {
      T sum = 0;
      for (int64_t r = i_ * num_positives; r < (i_ + 1) * num_positives; ++r) {
        sum += out.positive_weight[r] * element<T>(arguments.positives, r, d);
      }
      sum = add_keys(sum, out.selection.intra_index, out.intra_weight, problem_.intra.k, d);
      sum = add_keys(sum, out.selection.cross_index, out.cross_weight, problem_.cross.k, d);
      out.anchor_gradient[i_ * dim + d] = sum;
    }
  }

  __device__ T add_keys(T sum, const int64_t* index, const T* weight, int64_t k, int64_t d) const {
    for (int64_t j = i_ * k; j < (i_ + 1) * k && index[j] >= 0; ++j) {
      const KeyPlace key = place_of(problem_, index[j]);
      sum += weight[j] * element<T>(key.block->embedding, key.row, d);
    }
    return sum;
  }

  const Problem& problem_;
  const Wanted<T>& wanted_;
  int64_t i_;
  FinishShared<T>& shared_;
};

}  // namespace usucl::cuda
