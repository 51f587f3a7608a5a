// Nominees that wait for the canonical chain.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "rank.h"

namespace usucl::cpu {

// The nominees of many anchors that could still rank, each with a lower bound of its similarity.
// While they wait, most are beaten by the bounds of others, so the chain never scores them.
class Nominees {
 public:
  using Key = Rank<float>::Key;  // of the bound

  // depth: candidates wanted per anchor. burst: the most that are added between two calls of full.
  Nominees(int64_t rows, int64_t depth, int64_t burst)
      : depth_(depth),
        full_(2 * depth + kSlack),
        capacity_(full_ + burst),
        waiting_(new Key[rows * capacity_]),
        count_(rows, 0),
        width_(rows, 0.0f) {}

  // The similarity is in [least, least + width].
  void add(int64_t row, float least, float width, int64_t index) {
    waiting_[row * capacity_ + count_[row]++] = Rank<float>::key(least + 0.0f, index);  // not -0
    width_[row] = std::max(width_[row], width);
  }

  bool full(int64_t row) const { return count_[row] > full_; }

  // After drop_beaten: so many are left that the row would soon be full again.
  bool crowded(int64_t row) const { return count_[row] > depth_ + 3 * (full_ - depth_) / 4; }

  // Drops what cannot rank and returns a similarity that `depth` candidates reach, or -infinity.
  // scored: the row's other candidates, whose similarity is known; it is modified.
  float drop_beaten(int64_t row, std::vector<Key>* scored) {
    Key* const waiting = &waiting_[row * capacity_];
    scored->insert(scored->end(), waiting, waiting + count_[row]);
    const auto all = static_cast<int64_t>(scored->size());
    if (all < depth_) return -std::numeric_limits<float>::infinity();
    keep_largest(scored->data(), all, depth_, depth_);
    const float reached = Rank<float>::similarity((*scored)[depth_ - 1]);
    const auto beaten = [&](Key key) {  // in double, so that the sum does not round
      return double{Rank<float>::similarity(key)} + double{width_[row]} < double{reached};
    };
    count_[row] = std::remove_if(waiting, waiting + count_[row], beaten) - waiting;
    return reached;
  }

  // Calls use(index) for each waiting nominee and removes them all.
  template <typename Use>
  void take(int64_t row, const Use& use) {
    const Key* const waiting = &waiting_[row * capacity_];
    for (int64_t i = 0; i < count_[row]; ++i) use(Rank<float>::index(waiting[i]));
    count_[row] = 0;
    width_[row] = 0;
  }

 private:
  static constexpr int64_t kSlack = 64;  // small depths are cut rarely

  int64_t depth_;
  int64_t full_;
  int64_t capacity_;
  std::unique_ptr<Key[]> waiting_;  // [rows, capacity], uninitialised
  std::vector<int64_t> count_;      // [rows]
  std::vector<float> width_;        // [rows], the greatest among the waiting
};

}  // namespace usucl::cpu
