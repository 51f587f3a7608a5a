// Which keys share a video with some anchor: only these take part in the intra-video pass.
#pragma once

#include <cstdint>
#include <vector>

#include "../../core/problem.h"
#include "key_panel.h"

namespace usucl::cpu {

// The anchors of each video, and a hash table from a video id to its slot 0 .. count() - 1.
class AnchorVideos {
 public:
  // excluded [N], or null: anchors that select nothing. Empty slots select nothing either.
  AnchorVideos(const Frames& anchors, const bool* excluded);

  int64_t count() const { return static_cast<int64_t>(anchors_.size()); }

  // Ascending.
  const std::vector<int64_t>& anchors(int64_t slot) const { return anchors_[slot]; }

  // -1 if no anchor has that video.
  int32_t slot(int64_t id) const {
    for (uint64_t place = place_of(id);; place = (place + 1) & mask_) {
      const Entry& entry = table_[place];
      if (entry.slot < 0 || entry.id == id) return entry.slot;
    }
  }

 private:
  struct Entry {
    int64_t id;
    int32_t slot;
  };

  // The highest bits of a product with the golden ratio spread consecutive and strided ids.
  uint64_t place_of(int64_t id) const {
    return static_cast<uint64_t>(id) * 0x9e3779b97f4a7c15u >> shift_;
  }

  uint64_t mask_;  // number of places minus one
  int shift_;      // 64 minus the logarithm of that number
  std::vector<Entry> table_;
  std::vector<std::vector<int64_t>> anchors_;
};

// The keys in [begin, end) of each slot's video, in ascending order of index.
struct KeysByVideo {
  std::vector<int64_t> first;   // [count + 1]: slot s has first[s] .. first[s + 1] - 1
  std::vector<uint32_t> index;  // [first[count]]

  int64_t size(int64_t slot) const { return first[slot + 1] - first[slot]; }
};

KeysByVideo join(const AnchorVideos& videos, const Keys& keys, int64_t begin, int64_t end);

}  // namespace usucl::cpu
