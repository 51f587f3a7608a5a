// Bars, margins and lists of nominees, as all kernels of the dense pass know them.
#pragma once

#include "block.h"
#include "margin.h"
#include "mma_core.h"
#include "passes.h"

namespace usucl::cuda {

constexpr int kTileAnchors = 128;
constexpr int kTileKeys = 128;

struct Nominee {
  float score;
  uint32_t key;  // its index
};

// A row's similarities and scores differ by at most this, whatever the element type of the key.
struct Margins {
  Margin of[kElementTypes];
  const uint32_t* key_norm;  // [kElementTypes]: bits of the greatest of the finite keys

  // Infinite where it could not be told: then nobody is nominated. anchor_norm >= 0.
  __device__ float operator()(float anchor_norm) const {
    float margin = 0;
    for (int t = 0; t < kElementTypes; ++t) {
      const float norm = float_from_bits(key_norm[t]);
      if (norm == 0) continue;
      const bool too_large = t == type_of(DType::kFloat16) && anchor_norm > 6e4f;
      if (too_large || !(anchor_norm < 1e30f) || !(anchor_norm * norm < kMaxNormProduct)) {
        return INFINITY;
      }
      margin = fmaxf(margin, of[t].relative * anchor_norm * norm +
                                 of[t].absolute * (anchor_norm + norm + 1.0f));
    }
    return margin;
  }

  __device__ float greatest_key() const {
    float norm = 0;
    for (int t = 0; t < kElementTypes; ++t) norm = fmaxf(norm, float_from_bits(key_norm[t]));
    return norm;
  }
};

// Scores of an anchor from `lo` up fall into buckets of equal width, which all thread blocks count
// in: a bucket's lower edge is a bar once enough keys lie in it and above. Edges are integers of a
// power of two: a score is at or above an edge exactly if it is in that bucket or one above.
struct Scale {
  static constexpr int kBuckets = 256;
  float units;  // to an integer of at most 2^22
  int32_t lo;
  int32_t shift;

  // limit: no score is above it.
  __device__ static Scale of(float lowest, float limit) {
    Scale scale{};
    int exponent = 0;
    frexpf(fmaxf(limit, 0x1p-100f), &exponent);  // limit <= 2^exponent
    scale.units = ldexpf(1.0f, 22 - exponent);
    scale.lo = static_cast<int32_t>(floorf(fmaxf(lowest, -limit) * scale.units));
    while (((1 << 22) - scale.lo) >> scale.shift >= kBuckets) ++scale.shift;
    return scale;
  }

  // Negative: below them all.
  __device__ int bucket(float score) const {
    const int at = (static_cast<int32_t>(floorf(score * units)) - lo) >> shift;
    return at < kBuckets ? at : kBuckets - 1;
  }

  // Of a bucket's count: what the lanes of digit_of() ask for at once lies side by side.
  __device__ static int place(int bucket) { return bucket % 8 * 32 + bucket / 8; }

  __device__ float edge(int bucket) const {
    return static_cast<float>(lo + (bucket << shift)) / units;
  }
};

// What is known of an anchor before the pass over all keys.
struct AnchorStart {
  float bar;     // depth keys or more that count have a score of at least this
  float margin;  // infinite: the chain must search. Negative: nothing is to be found
  Scale scale;
};

// Scores below this cannot be of one of the hardest: their similarity is less than that of each of
// the `depth` keys at or above the bar.
__device__ inline float limit_of(float bar, float margin) {
  return bar - 2.0f * margin - fabsf(bar) * 0x1p-22f;
}

// Whether the similarity is certain not to be above the guard against false negatives.
__device__ inline bool surely_counts(float score, float margin, float max_similarity) {
  return score + margin <= max_similarity;
}

__device__ inline bool may_count(float score, float margin, float max_similarity) {
  return score - score == 0.0f && !(score - margin > max_similarity);
}

constexpr int kDigits = 256;

// How many of value[0..] of a lane and those of the lanes above it.
__device__ inline uint32_t suffix_sum(uint32_t own) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t above = __shfl_down_sync(kWholeWarp, own, static_cast<unsigned>(distance));
    if (lane + distance < 32) own += above;
  }
  return own;
}

// The greatest digit such that `wanted` or more are counted at it and above, or -1; *above: how
// many are above it. count(d) is asked of one lane for each d, in ascending order from lane to
// lane.
template <typename Count>
__device__ int digit_of(const Count& count, int64_t wanted, int64_t* above) {
  constexpr int kOfLane = kDigits / 32;
  const int first = static_cast<int>(threadIdx.x) % 32 * kOfLane;
  uint32_t counts[kOfLane], own = 0;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) own += counts[i] = count(first + i);
  const uint32_t suffix = suffix_sum(own);
  const unsigned lanes = __ballot_sync(kWholeWarp, suffix >= wanted);
  if (lanes == 0) return -1;
  const int lane = 31 - __clz(static_cast<int>(lanes));
  uint32_t higher = suffix - own;  // of this lane: only the chosen one's is used
  int digit = first + kOfLane - 1;
#pragma unroll
  for (int i = kOfLane - 1; i > 0; --i) {
    if (digit == first + i && higher + counts[i] < wanted) {
      higher += counts[i];
      --digit;
    }
  }
  *above = __shfl_sync(kWholeWarp, higher, lane);
  return __shfl_sync(kWholeWarp, digit, lane);
}

// The k-th greatest of value(0 .. count - 1), by one warp: a digit of 8 bits after the other.
// -infinity if there are fewer. `histogram` [kDigits] is shared memory of the warp.
template <typename Value>
__device__ float kth_greatest(const Value& value, int64_t count, int64_t k, uint32_t* histogram) {
  if (count < k) return -INFINITY;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int d = lane; d < kDigits; d += 32) histogram[d] = 0;
    __syncwarp();
    for (int64_t i = lane; i < count; i += 32) {
      const uint32_t bits = ordered(value(i));
      if (shift < 24 && (bits ^ prefix) >> (shift + 8) != 0) continue;
      atomicAdd(&histogram[bits >> shift & (kDigits - 1)], 1u);
    }
    __syncwarp();
    int64_t above = 0;
    const int digit = digit_of([&](int d) { return histogram[d]; }, k, &above);
    prefix |= static_cast<uint32_t>(digit) << shift;
    k -= above;
    __syncwarp();
  }
  return from_ordered(prefix);
}

// Keeps those of a list that pass, in their order; returns how many. By one warp, in place.
template <typename Passes>
__device__ int keep_those(Nominee* list, int count, const Passes& passes) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int kept = 0;
  for (int first = 0; first < count; first += 32) {
    Nominee own{};
    const bool there = first + lane < count;
    if (there) own = list[first + lane];
    const bool stays = there && passes(own);
    const unsigned stayers = __ballot_sync(kWholeWarp, stays);
    __syncwarp();  // all have read
    if (stays) list[kept + __popc(stayers & ((1u << lane) - 1))] = own;
    kept += __popc(stayers);
    __syncwarp();
  }
  return kept;
}

}  // namespace usucl::cuda
