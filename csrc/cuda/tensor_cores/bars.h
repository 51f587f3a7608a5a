// What all kernels of the dense pass share about nominees: margins, bars, limits.
#pragma once

#include "../block.h"
#include "../passes.h"
#include "mma_core.h"
#include "rounding.h"

namespace usucl::cuda {

constexpr int kTileAnchors = 128;
constexpr int kTileKeys = 128;

struct Nominee {
  float score;
  uint32_t key;  // index of the key
};

// The largest difference between similarity and score for an anchor, over all key types.
struct Margins {
  NominationMargin of[kElementTypes];
  const uint32_t* key_norm;  // [kElementTypes]: bits of the greatest norm of finite keys

  // Infinite if no bound is known: then nothing is nominated. anchor_norm >= 0.
  __device__ float operator()(float anchor_norm) const {
    float margin = 0;
    for (int t = 0; t < kElementTypes; ++t) {
      const float norm = float_from_bits(key_norm[t]);
      if (norm == 0) continue;
      const bool too_large = t == type_of(DType::kFloat16) && anchor_norm > 6e4f;
      if (too_large || !(anchor_norm < 1e30f) || !(anchor_norm * norm < kMaxNormProduct)) {
        return INFINITY;
      }
      margin = fmaxf(margin, of[t](anchor_norm, norm));
    }
    return margin;
  }
};

// What the sample says about an anchor before the pass over all keys.
struct AnchorStart {
  float bar;     // at least `depth` keys should reach it
  float margin;  // infinite: the chain must search. Negative: there is nothing to find
};

// If `depth` keys reach the bar, a key whose score is below this limit is less similar than each of
// them, so it is not among the hardest.
__device__ inline float limit_of(float bar, float margin) {
  return bar - 2.0f * margin - fabsf(bar) * 0x1p-22f;
}

// Whether the similarity behind this score is certainly at most the greatest allowed one.
__device__ inline bool surely_counts(float score, float margin, float greatest) {
  return score + margin <= greatest;
}

// Whether valid_similarity() may hold for the similarity behind this score.
__device__ inline bool may_count(float score, float margin, float greatest) {
  return score - score == 0.0f && !(score - margin > greatest);
}

constexpr int kDigits = 256;

// The greatest digit of the histogram [kDigits] such that at least `wanted` counts are at or above
// it, or -1, by one warp; *above: the counts above it.
__device__ inline int digit_of(const uint32_t* histogram, int64_t wanted, int64_t* above) {
  constexpr int kOfLane = kDigits / 32;
  const int first = lane() * kOfLane;
  uint32_t counts[kOfLane], own = 0;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) own += counts[i] = histogram[first + i];
  uint32_t suffix = own;  // of this lane and the higher ones
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t more = __shfl_down_sync(kWholeWarp, suffix, static_cast<unsigned>(distance));
    if (lane() + distance < 32) suffix += more;
  }
  const unsigned lanes = __ballot_sync(kWholeWarp, suffix >= wanted);
  if (lanes == 0) return -1;
  const int chosen = 31 - __clz(static_cast<int>(lanes));
  uint32_t higher = suffix - own;  // used by the chosen lane only
  int digit = first + kOfLane - 1;
#pragma unroll
  for (int i = kOfLane - 1; i > 0; --i) {
    if (digit == first + i && higher + counts[i] < wanted) {
      higher += counts[i];
      --digit;
    }
  }
  *above = __shfl_sync(kWholeWarp, higher, chosen);
  return __shfl_sync(kWholeWarp, digit, chosen);
}

// The k-th greatest of value(0 .. count - 1), or one of the values a little below it, by one warp;
// -infinity if fewer than k are above -infinity. k >= 1. `histogram` [kDigits] is shared memory of
// the warp. A range of values is divided into buckets of equal width, and the bucket that holds the
// k-th is the next range: two rounds resolve 2^-16 of the first range.
template <typename Value>
__device__ float nearly_kth_greatest(const Value& value, int64_t count, int64_t k,
                                     uint32_t* histogram) {
  float own_greatest = -INFINITY, own_least = INFINITY;
  for (int64_t i = lane(); i < count; i += 32) {
    const float one = value(i);
    own_greatest = fmaxf(own_greatest, one);
    if (one > -INFINITY) own_least = fminf(own_least, one);
  }
  float high = WarpTeam::greatest(own_greatest);
  // 32 values, the greatest of each lane, are at or above the least of the lanes' greatest.
  float low = k <= 32 ? -WarpTeam::greatest(-own_greatest) : -INFINITY;
  if (low == -INFINITY) low = -WarpTeam::greatest(-own_least);
  if (high == -INFINITY) return -INFINITY;
  for (int pass = 0; pass < 2; ++pass) {
    const float scale = static_cast<float>(kDigits - 1) / (high - low);
    const float first = low, last = high;
    const bool flat = !(scale < INFINITY);  // the range is too narrow to divide
    const auto bucket = [&](float one) {
      return flat ? 0 : static_cast<int>((one - first) * scale);
    };
    for (int d = lane(); d < kDigits; d += 32) histogram[d] = 0;
    __syncwarp();
    for (int64_t i = lane(); i < count; i += 32) {
      const float one = value(i);
      if (one >= first && one <= last) atomicAdd(&histogram[bucket(one)], 1u);
    }
    __syncwarp();
    int64_t above = 0;
    const int chosen = digit_of(histogram, k, &above);
    const bool alone = chosen >= 0 && histogram[chosen] <= static_cast<uint32_t>(k - above);
    __syncwarp();  // all lanes have read before the next pass clears it
    if (chosen < 0) return -INFINITY;
    k -= above;
    float least = INFINITY, greatest = -INFINITY;
    for (int64_t i = lane(); i < count; i += 32) {
      const float one = value(i);
      if (!(one >= first && one <= last) || bucket(one) != chosen) continue;
      least = fminf(least, one);
      greatest = fmaxf(greatest, one);
    }
    low = -WarpTeam::greatest(-least);
    high = WarpTeam::greatest(greatest);
    if (alone || !(low < high)) break;
  }
  return low;
}

// Keeps the elements of a list that pass, in order, and returns how many. By one warp, in place.
template <typename Passes>
__device__ int keep_those(Nominee* list, int count, const Passes& passes) {
  int kept = 0;
  for (int first = 0; first < count; first += 32) {
    Nominee own{};
    const bool there = first + lane() < count;
    if (there) own = list[first + lane()];
    const bool stays = there && passes(own);
    const unsigned stayers = __ballot_sync(kWholeWarp, stays);
    __syncwarp();  // all lanes have read
    if (stays) list[kept + place_among(stayers)] = own;
    kept += __popc(stayers);
    __syncwarp();
  }
  return kept;
}

}  // namespace usucl::cuda
