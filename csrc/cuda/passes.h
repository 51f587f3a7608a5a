// The steps of a forward pass. Small problems take one launch; others find the candidates of each
// group in a pass of its own, then finish anchor by anchor.
#pragma once

#include "device_problem.h"

namespace usucl::cuda {

// What is left of the candidates of one group: for every anchor `lists` sorted lists of `depth`,
// filled up with no_candidate(). No list: the group selects nothing. Where there is a count, so
// many candidates of each anchor, in any order.
template <typename T>
struct CandidateLists {
  Candidate<T>* candidates;  // [N, lists, depth]
  int64_t lists;
  int64_t depth;
  int32_t* count;  // [N] or null

  __device__ Candidate<T>* of(int64_t anchor) const { return candidates + anchor * size(); }
  USUCL_HD int64_t size() const { return lists * depth; }
};

// Some of the anchors, known on the device only.
struct AnchorSubset {
  const int32_t* rows;
  const int32_t* count;  // []
};

// What a forward pass computes for every anchor.
template <typename T>
struct Outputs {
  LossArguments<T> arguments;
  LossArrays<T> arrays;    // loss null: the selection alone
  T* positive_similarity;  // [N, R] to work in, or null where R <= kNearPositives
};

constexpr int64_t kNearPositives = 32;

// problem: on the host, device: the same on the device.
bool is_small(const Problem& problem);

template <typename T>
void small_problem(const Problem& problem, const DeviceProblem& device, const Outputs<T>& outputs,
                   const Call& call);

template <typename T>
CandidateLists<T> intra_pass(const Problem& problem, const DeviceProblem& device, const Call& call);

// The cross-video candidates by the chain, which scores every pair. depth > 0, and there are
// anchors.
template <typename T>
CandidateLists<T> chain_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                             const Call& call);

// The same by tensor cores, which nominate, for the problems that they can take and are worth it.
bool takes_dense_pass(const Problem& problem, int64_t depth, const Call& call);

CandidateLists<float> dense_pass(const Problem& problem, const DeviceProblem& device, int64_t depth,
                                 const Call& call);

// Ranks every key for these anchors, of which it sets kept.count; kept has room for `depth`.
void search_by_chain(const Problem& problem, const DeviceProblem& device,
                     const AnchorSubset& anchors, const CandidateLists<float>& kept, int64_t depth,
                     const Call& call);

// [N] of T for Problem::limits: what the margin of a loss leaves to the negatives of each anchor.
template <typename T>
const void* limits_by_positives(const Matrix& anchors, const LossArguments<T>& arguments,
                                const Call& call);

template <typename T>
void finish(const Problem& problem, const DeviceProblem& device, const CandidateLists<T>& intra,
            const CandidateLists<T>& cross, const Outputs<T>& outputs, const Call& call);

}  // namespace usucl::cuda
