// The steps of a forward pass. Small problems take one launch; others find the candidates of each
// group in a separate pass, then finish one anchor at a time.
#pragma once

#include "device_problem.h"

namespace usucl::cuda {

// The remaining candidates of one group: for every anchor, `lists` sorted lists of `depth`, padded
// with no_candidate(). Without lists the group selects nothing. If count is given, each anchor has
// that many candidates in any order.
template <typename T>
struct CandidateLists {
  Candidate<T>* candidates;  // [N, lists, depth]
  int64_t lists;
  int64_t depth;
  int32_t* count;  // [N] or null

  __device__ Candidate<T>* of(int64_t anchor) const { return candidates + anchor * size(); }
  USUCL_HD int64_t size() const { return lists * depth; }
};

// A subset of the anchors, known only on the device.
struct AnchorSubset {
  const int32_t* rows;
  const int32_t* count;  // []
};

// What a forward pass computes for every anchor.
template <typename T>
struct Outputs {
  LossArguments<T> arguments;
  LossArrays<T> arrays;    // loss null: only the selection
  T* positive_similarity;  // [N, R] scratch memory, or null if R <= kNearPositives
};

constexpr int64_t kNearPositives = 32;

// problem: on the host; device: the same on the device.
bool is_small(const Problem& problem);

template <typename T>
void small_problem(const Problem& problem, const DeviceProblem& device, const Outputs<T>& outputs,
                   const Call& call);

template <typename T>
CandidateLists<T> intra_pass(const Problem& problem, const DeviceProblem& device, const Call& call);

// The cross-video candidates by the chain, which scores every pair. Needs depth > 0 and anchors.
template <typename T>
CandidateLists<T> chain_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                             const Call& call);

// The same with nomination by tensor cores, for problems that they support and that are worth it.
bool takes_dense_pass(const Problem& problem, int64_t depth, const Call& call);

CandidateLists<float> dense_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                                 const Call& call);

// Ranks every key for these anchors and sets their kept.count; kept has room for `depth`.
void search_by_chain(const Problem& problem, const DeviceProblem& device,
                     const AnchorSubset& anchors, const CandidateLists<float>& kept, int64_t depth,
                     const Call& call);

// [N] of T for Problem::limits: what the loss margin allows as negatives of each anchor.
template <typename T>
const void* limits_by_positives(const Matrix& anchors, const LossArguments<T>& arguments,
                                const Call& call);

template <typename T>
void finish(const Problem& problem, const DeviceProblem& device, const CandidateLists<T>& intra,
            const CandidateLists<T>& cross, const Outputs<T>& outputs, const Call& call);

}  // namespace usucl::cuda
