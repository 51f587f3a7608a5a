// What the threads of one block, or of one warp, do together.
#pragma once

#include "../core/ordering.h"
#include "../core/similarity.h"
#include "device_problem.h"

namespace usucl::cuda {

struct BlockTeam {
  static constexpr int kSize = kThreads;
  static __device__ int rank() { return static_cast<int>(threadIdx.x); }
  static __device__ void sync() { __syncthreads(); }
};

struct WarpTeam {
  static constexpr int kSize = 32;
  static __device__ int rank() { return lane(); }
  static __device__ void sync() { __syncwarp(); }

  // All lanes get the same bits: each step adds the same two values in both lanes.
  template <typename T>
  static __device__ T sum(T own) {
    for (int bits = kSize / 2; bits > 0; bits /= 2) own += __shfl_xor_sync(kWholeWarp, own, bits);
    return own;
  }

  template <typename T>
  static __device__ T greatest(T own) {
    for (int bits = kSize / 2; bits > 0; bits /= 2) {
      const T other = __shfl_xor_sync(kWholeWarp, own, bits);
      own = other > own ? other : own;
    }
    return own;
  }
};

// A bitonic network whose every comparison puts the lesser element first: elements past the end
// would stay there, so they need not exist. `before` is a strict total order, so the input order
// does not affect the result. Begins and ends with a barrier of the team.
template <typename Team, typename Element, typename Before>
__device__ void sort(Element* elements, int64_t count, const Before& before) {
  Team::sync();
  int64_t padded = 1;
  while (padded < count) padded *= 2;
  for (int64_t size = 2; size <= padded; size *= 2) {
    for (int64_t distance = size / 2; distance > 0; distance /= 2) {
      for (int64_t pair = Team::rank(); pair < padded / 2; pair += Team::kSize) {
        const int64_t i = 2 * pair - (pair & (distance - 1));
        // The first step compares the first half with the second half reversed.
        const int64_t j = distance == size / 2 ? i ^ (size - 1) : i + distance;
        if (j >= count || !before(elements[j], elements[i])) continue;
        const Element later = elements[i];
        elements[i] = elements[j];
        elements[j] = later;
      }
      Team::sync();
    }
  }
}

template <typename Team, typename T>
__device__ void sort_candidates(Candidate<T>* candidates, int64_t count) {
  sort<Team>(candidates, count,
             [](const Candidate<T>& a, const Candidate<T>& b) { return ranks_before(a, b); });
}

// Ranks behind every candidate.
template <typename T>
__device__ Candidate<T> no_candidate() {
  return {-static_cast<T>(INFINITY), INT64_MAX};
}

// Moves the `depth` best of a list to its front in rank order, by one warp; fast for a small depth.
template <typename T>
__device__ void select_best(Candidate<T>* list, int64_t count, int64_t depth) {
  __syncwarp();
  for (int64_t rank = 0; rank < depth && rank < count; ++rank) {
    Candidate<T> best = no_candidate<T>();
    int64_t place = rank;
    for (int64_t i = rank + lane(); i < count; i += 32) {
      if (!ranks_before(list[i], best)) continue;
      best = list[i];
      place = i;
    }
    for (int bits = 16; bits > 0; bits /= 2) {
      const Candidate<T> other{__shfl_xor_sync(kWholeWarp, best.similarity, bits),
                               __shfl_xor_sync(kWholeWarp, best.index, bits)};
      const int64_t others = __shfl_xor_sync(kWholeWarp, place, bits);
      if (!ranks_before(other, best)) continue;
      best = other;
      place = others;
    }
    __syncwarp();  // all lanes have read
    if (lane() == 0) {
      list[place] = list[rank];
      list[rank] = best;
    }
    __syncwarp();
  }
}

constexpr int64_t kFew = 8;

// Sorts a list and cuts it to `depth` candidates; returns the new length. If `depth` are left, the
// last one goes to *worst: only candidates before it can still count.
template <typename Team, typename T>
__device__ USUCL_OUT_OF_LINE int64_t keep_best(Candidate<T>* list, int64_t count, int64_t depth,
                                               Candidate<T>* worst) {
  if (Team::kSize == WarpTeam::kSize && depth <= kFew) {
    select_best(list, count, depth);
  } else {
    sort_candidates<Team>(list, count);
  }
  if (count < depth) return count;
  if (Team::rank() == 0) *worst = list[depth - 1];
  return depth;
}

// Copies a sorted list to out [depth], padded with no_candidate().
template <typename Team, typename T>
__device__ void write_padded(const Candidate<T>* list, int64_t count, int64_t depth,
                             Candidate<T>* out) {
  for (int64_t i = Team::rank(); i < depth; i += Team::kSize) {
    out[i] = i < count ? list[i] : no_candidate<T>();
  }
}

// One upcast anchor for a team, staged in shared memory one piece of its dimensions at a time.
template <typename T, typename Team>
struct StagedAnchor {
  static constexpr int kDims = 256;
  T value[kDims];

  // Returns the similarity with row `row` of `matrix` to threads that have one (there); all threads
  // of the team take part. again: the previous call was for the same anchor, so what fits is
  // staged.
  __device__ T score(const Matrix& anchors, int64_t anchor, const Matrix& matrix, int64_t row,
                     bool there, bool again) {
    T sum = 0;
    for (int64_t start = 0; start < anchors.dim; start += kDims) {
      const int width = static_cast<int>(anchors.dim - start < kDims ? anchors.dim - start : kDims);
      if (!again || anchors.dim > kDims) {
        Team::sync();
        for (int d = Team::rank(); d < width; d += Team::kSize) {
          value[d] = element<T>(anchors, anchor, start + d);
        }
        Team::sync();
      }
      if (there) sum = continue_chain(sum, value, matrix, row, start, width);
    }
    return canonical(sum);
  }
};

// value(0) + ... + value(count - 1) in float64, in an order that depends on count alone, returned
// to thread 0. `partial` [kThreads] is shared memory.
template <typename Value>
__device__ double sum_in_block(const Value& value, int64_t count, double* partial) {
  const int thread = static_cast<int>(threadIdx.x);
  double sum = 0;
  for (int64_t i = thread; i < count; i += kThreads) sum += value(i);
  partial[thread] = sum;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) partial[thread] += partial[thread + half];
    __syncthreads();
  }
  return partial[0];
}

}  // namespace usucl::cuda
