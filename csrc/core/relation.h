// Which key counts for which anchor: the only place that compares video and patient ids.
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

USUCL_HD bool same_video(const FrameTag& a, const FrameTag& b) { return a.video == b.video; }

USUCL_HD bool same_known_patient(const FrameTag& a, const FrameTag& b) {
  return a.patient >= 0 && a.patient == b.patient;
}

// Whether two frames have different videos and are not known to share a patient.
USUCL_HD bool crosses(const FrameTag& a, const FrameTag& b) {
  return !a.is_empty() && !b.is_empty() && !same_video(a, b) && !same_known_patient(a, b);
}

// The same video takes precedence over contradicting patient ids.
USUCL_HD Relation relation(const FrameTag& anchor, const FrameTag& key, const Window& window) {
  if (crosses(anchor, key)) return Relation::kCrossVideo;
  const bool intra =
      !anchor.is_empty() && same_video(anchor, key) && inside(window, anchor.time, key.time);
  return intra ? Relation::kIntraVideo : Relation::kIgnored;
}

// Finite, and at most the greatest that a negative may have. The comparison is in T.
template <typename T>
USUCL_HD bool valid_similarity(T similarity, T greatest) {
  return similarity - similarity == T(0) && !(similarity > greatest);
}

// What follows decides for many frames at once, or from shortened ids.

// The ids that all frames of a group share.
struct CommonIds {
  static constexpr int64_t kNone = -1;

  int64_t video;    // negative: not shared
  int64_t patient;  // negative: not shared
};

// The id >= 0 that all of `count` > 0 rows have, or CommonIds::kNone. ids may be null: unknown.
USUCL_HD int64_t common_id(const int64_t* ids, const int64_t* rows, int64_t count) {
  if (ids == nullptr || ids[rows[0]] < 0) return CommonIds::kNone;
  for (int64_t r = 1; r < count; ++r) {
    if (ids[rows[r]] != ids[rows[0]]) return CommonIds::kNone;
  }
  return ids[rows[0]];
}

// Whether certainly no frame of one group crosses() a frame of the other.
USUCL_HD bool never_cross(const CommonIds& a, const CommonIds& b) {
  return (a.video >= 0 && a.video == b.video) || (a.patient >= 0 && a.patient == b.patient);
}

// The low bits of a frame's video and patient. Frames that differ in them differ; frames that agree
// in them may still differ in the high bits.
struct ShortTag {
  static constexpr uint32_t kNone = 0x80000000u;  // empty slot, no key, unknown patient of a key

  uint32_t video;
  uint32_t patient;

  static USUCL_HD ShortTag of_key(const FrameTag& tag) { return of(tag, kNone); }
  // The unknown patient of an anchor must differ from that of a key.
  static USUCL_HD ShortTag of_anchor(const FrameTag& tag) { return of(tag, ~0u); }
  static USUCL_HD ShortTag none() { return {kNone, kNone}; }

  USUCL_HD bool is_empty() const { return video == kNone; }

 private:
  static USUCL_HD ShortTag of(const FrameTag& tag, uint32_t unknown) {
    return {tag.is_empty() ? kNone : static_cast<uint32_t>(tag.video) & ~kNone,
            tag.patient < 0 ? unknown : static_cast<uint32_t>(tag.patient) & ~kNone};
  }
};

// Whether an anchor that is not an empty slot certainly crosses() a key.
USUCL_HD bool surely_crosses(const ShortTag& anchor, const ShortTag& key) {
  return !key.is_empty() && !(anchor.video == key.video || anchor.patient == key.patient);
}

}  // namespace usucl
