// The end of one anchor's forward pass: from sorted candidates to selection, loss and gradient.
#pragma once

#include <type_traits>

#include "../core/row.h"
#include "block.h"
#include "passes.h"

namespace usucl::cuda {

// The shared memory of one team.
template <typename T, typename Team>
struct FinishShared {
  StagedAnchor<T, Team> anchor;
  T positive[kNearPositives];
  int broken;
  Matrix key[Team::kSize];  // one row each: the selected keys staged at once
  T weight[Team::kSize];
  int num_keys;
};

// Adds weight * row of the staged keys to kWidth neighbouring dimensions per thread. The keys have
// type Stored or, if that is double, any type. With one type, many loads are in flight at once. Out
// of line because of its registers.
template <typename Stored, int kWidth, typename T, typename Team>
__device__ USUCL_OUT_OF_LINE void add_staged(const FinishShared<T, Team>& shared, T* gradient,
                                             int64_t dim) {
  struct alignas(kWidth * sizeof(Stored)) Elements {
    Stored value[kWidth];
  };
  const int count = shared.num_keys;
  for (int64_t d = Team::rank() * kWidth; d < dim; d += Team::kSize * kWidth) {
    T sum[kWidth];
#pragma unroll
    for (int w = 0; w < kWidth; ++w) sum[w] = gradient[d + w];
#pragma unroll 4
    for (int j = 0; j < count; ++j) {
      const Matrix& key = shared.key[j];
      const T weight = shared.weight[j];
      if constexpr (std::is_same_v<Stored, double>) {
#pragma unroll
        for (int w = 0; w < kWidth; ++w) sum[w] += weight * element<T>(key, 0, d + w);
      } else {
        const auto elements =
            *reinterpret_cast<const Elements*>(static_cast<const Stored*>(key.data) + d);
#pragma unroll
        for (int w = 0; w < kWidth; ++w) {
          sum[w] += weight * static_cast<T>(upcast(elements.value[w]));
        }
      }
    }
#pragma unroll
    for (int w = 0; w < kWidth; ++w) gradient[d + w] = sum[w];
  }
}

// Sorted candidates; no_candidate()s may follow at the end.
template <typename T>
struct SortedCandidates {
  const Candidate<T>* candidates;
  int64_t count;
};

// The work of one team on anchor i.
template <typename T, typename Team>
class AnchorFinish {
 public:
  __device__ AnchorFinish(const Problem& problem, const Outputs<T>& outputs, int64_t i,
                          FinishShared<T, Team>& shared)
      : problem_(problem), outputs_(outputs), i_(i), shared_(shared) {}

  // staged: the anchor is already in shared memory.
  __device__ void run(const SortedCandidates<T>& intra, const SortedCandidates<T>& cross,
                      bool staged) {
    const SelectionArrays<T>& selection = outputs_.arrays.selection;
    const bool with_loss = outputs_.arrays.loss != nullptr;
    T* positive = outputs_.positive_similarity == nullptr
                      ? shared_.positive
                      : outputs_.positive_similarity + i_ * outputs_.arguments.num_positives;
    const bool broken = with_loss && score_positives(positive, staged);
    write_ranks(intra, problem_.intra, broken, selection.intra_index, selection.intra_similarity);
    write_ranks(cross, problem_.cross, broken, selection.cross_index, selection.cross_similarity);
    if (!with_loss) return;
    Team::sync();
    if (Team::rank() < WarpTeam::kSize) {
      finish_row<WarpTeam>(problem_, outputs_.arguments, i_, positive, broken, outputs_.arrays);
    }
    Team::sync();
    if (outputs_.arrays.anchor_gradient != nullptr) write_gradient();
  }

 private:
  // Whether the anchor or a positive's similarity is not finite, or the arguments are not valid.
  __device__ bool score_positives(T* positive, bool staged) {
    const Matrix& anchors = problem_.anchors.embedding;
    const int64_t num_positives = outputs_.arguments.num_positives;
    const int thread = Team::rank();
    if (thread == 0) shared_.broken = 0;  // last read before the previous anchor's loss
    Team::sync();
    bool all_finite = true;
    for (int64_t d = thread; d < anchors.dim; d += Team::kSize) {
      all_finite &= is_finite(element<T>(anchors, i_, d));
    }
    for (int64_t first = 0; first < num_positives; first += Team::kSize) {
      const int64_t r = first + thread;
      const T similarity =
          shared_.anchor.score(anchors, i_, outputs_.arguments.positives, i_ * num_positives + r,
                               r < num_positives, staged || first > 0);
      if (r >= num_positives) continue;
      positive[r] = similarity;
      all_finite &= is_finite(similarity);
    }
    if (thread == 0) all_finite &= outputs_.arguments.valid(i_);
    if (!all_finite) atomicMax(&shared_.broken, 1);
    Team::sync();
    return shared_.broken != 0;
  }

  __device__ void write_ranks(const SortedCandidates<T>& ranked, const Ranks& ranks, bool none,
                              int64_t* index, T* similarity) const {
    for (int64_t rank = Team::rank(); rank < ranks.k; rank += Team::kSize) {
      Candidate<T> found = no_candidate<T>();
      if (!none && ranks.skip < ranked.count && rank < ranked.count - ranks.skip) {
        found = ranked.candidates[ranks.skip + rank];
      }
      const bool taken = found.index != no_candidate<T>().index;
      index[i_ * ranks.k + rank] = taken ? found.index : -1;
      similarity[i_ * ranks.k + rank] = found.similarity;
    }
  }

  // Sums weight * row over the positives, then the intra-video, then the cross-video negatives,
  // with one thread per dimension.
  __device__ void write_gradient() {
    const LossArguments<T>& arguments = outputs_.arguments;
    const LossArrays<T>& out = outputs_.arrays;
    const int64_t dim = problem_.anchors.embedding.dim, num_positives = arguments.num_positives;
    for (int64_t d = Team::rank(); d < dim; d += Team::kSize) {
      T sum = 0;
      for (int64_t r = i_ * num_positives; r < (i_ + 1) * num_positives; ++r) {
        sum += out.positive_weight[r] * element<T>(arguments.positives, r, d);
      }
      out.anchor_gradient[i_ * dim + d] = sum;
    }
    add_keys(out.selection.intra_index, out.intra_weight, problem_.intra.k);
    add_keys(out.selection.cross_index, out.cross_weight, problem_.cross.k);
  }

  __device__ void add_keys(const int64_t* index, const T* weight, int64_t k) {
    for (int64_t first = 0; first < k; first += Team::kSize) {
      stage_keys(index + i_ * k + first, weight + i_ * k + first, k - first);
      if (shared_.num_keys == 0) return;
      switch (common_dtype()) {
        case DType::kFloat32:
          add_staged_keys<float>();
          break;
        case DType::kBFloat16:
          add_staged_keys<BFloat16>();
          break;
        case DType::kFloat16:
          add_staged_keys<Float16>();
          break;
        default:
          add_staged_keys<double>();
      }
    }
  }

  // Adds four dimensions per lane if a team is one warp and the rows allow it.
  template <typename Stored>
  __device__ void add_staged_keys() {
    constexpr int kWidth = Team::kSize == WarpTeam::kSize ? 4 : 1;
    const int64_t dim = problem_.anchors.embedding.dim;
    T* gradient = outputs_.arrays.anchor_gradient + i_ * dim;
    bool aligned = dim % kWidth == 0;
    for (int64_t b = 0; b < problem_.num_blocks; ++b) {
      const auto address = reinterpret_cast<uintptr_t>(problem_.blocks[b].embedding.data);
      aligned &= address % (kWidth * sizeof(Stored)) == 0;
    }
    if (aligned) {
      add_staged<Stored, kWidth>(shared_, gradient, dim);
    } else {
      add_staged<Stored, 1>(shared_, gradient, dim);
    }
  }

  // Stages up to Team::kSize of the existing keys: those without an index come last.
  __device__ void stage_keys(const int64_t* index, const T* weight, int64_t count) {
    const int thread = Team::rank();
    Team::sync();  // keys staged before have been added
    const bool there = thread < count && index[thread] >= 0;
    if (there) {
      const KeyPlace place = place_of(problem_.blocks, index[thread]);
      const Matrix& keys = place.block->embedding;
      const auto* data = static_cast<const unsigned char*>(keys.data);
      const int64_t byte = keys.offset(place.row, 0) * bytes_of(keys.dtype);
      shared_.key[thread] = {data + byte, keys.dtype, 1, keys.dim};
      shared_.weight[thread] = weight[thread];
    }
    const bool more = thread + 1 < Team::kSize && thread + 1 < count && index[thread + 1] >= 0;
    if (there && !more) shared_.num_keys = thread + 1;
    if (thread == 0 && !there) shared_.num_keys = 0;
    Team::sync();
  }

  // The dtype of the staged keys; float64 if nonempty blocks differ.
  __device__ DType common_dtype() const {
    const DType dtype = shared_.key[0].dtype;
    for (int64_t b = 0; b < problem_.num_blocks; ++b) {
      const Matrix& keys = problem_.blocks[b].embedding;
      if (keys.rows > 0 && keys.dtype != dtype) return DType::kFloat64;
    }
    return dtype;
  }

  const Problem& problem_;
  const Outputs<T>& outputs_;
  int64_t i_;
  FinishShared<T, Team>& shared_;
};

}  // namespace usucl::cuda
