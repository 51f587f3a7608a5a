// Which key counts for which anchor.
#pragma once

#include <cmath>

#include "problem.h"

namespace usucl {

enum class Relation { kIgnored, kIntraVideo, kCrossVideo };

// A NaN distance, from a NaN time, fails every comparison.
USUCL_HD bool inside(const Window& window, float anchor_time, float key_time) {
  const float distance = fabsf(anchor_time - key_time);
  return distance > 0.0f && window.lo <= distance && distance <= window.hi;
}

USUCL_HD bool same_known_patient(const FrameTag& anchor, const FrameTag& key) {
  return anchor.patient >= 0 && anchor.patient == key.patient;
}

// The same video wins over contradicting patient ids.
USUCL_HD Relation relation(const FrameTag& anchor, const FrameTag& key, const Window& window) {
  if (anchor.video < 0 || key.video < 0) return Relation::kIgnored;
  if (anchor.video == key.video) {
    return inside(window, anchor.time, key.time) ? Relation::kIntraVideo : Relation::kIgnored;
  }
  return same_known_patient(anchor, key) ? Relation::kIgnored : Relation::kCrossVideo;
}

// Finite, and not above the guard against false negatives. The comparison is in T.
template <typename T>
USUCL_HD bool valid_similarity(T similarity, T max_similarity) {
  return similarity - similarity == T(0) && !(similarity > max_similarity);
}

}  // namespace usucl
