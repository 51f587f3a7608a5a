// Keeps the hardest candidates of many anchors without sorting as they come.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../core/ordering.h"
#include "rank.h"

namespace usucl::cpu {

// For each row at least the `depth` best of all that was added: candidates are appended, and when
// the row is full all but the best `depth` are dropped. A full row never loses a candidate that
// ranks: it is cut as soon as it cannot take `burst` more.
template <typename T>
class Reservoirs {
 public:
  using Key = typename Rank<T>::Key;

  // num_keys: the most that can be added to a row. burst: the most between two calls of settle.
  Reservoirs(int64_t rows, int64_t depth, int64_t num_keys, int64_t burst)
      : depth_(depth),
        full_(std::min(std::max(2 * depth, depth + kSlack), num_keys)),
        capacity_(full_ + burst),
        kept_(std::make_unique<Key[]>(rows * capacity_)),
        count_(rows, 0),
        least_(rows, Rank<T>::kNone) {}

  // Only a candidate above this can still rank; kNone until a row was cut.
  Key least(int64_t row) const { return least_[row]; }

  void add(int64_t row, Key key) { kept_[row * capacity_ + count_[row]++] = key; }

  // To be called after at most `burst` additions to a row.
  void settle(int64_t row) {
    if (count_[row] <= full_) return;
    least_[row] = keep_largest(&kept_[row * capacity_], count_[row], depth_);
    count_[row] = depth_;
  }

  // Appends what the row holds; ordinals become indices from `origin` on.
  void append(int64_t row, int64_t origin, std::vector<Candidate<T>>* out) const {
    const Key* kept = &kept_[row * capacity_];
    for (int64_t i = 0; i < count_[row]; ++i) {
      out->push_back({Rank<T>::similarity(kept[i]), origin + Rank<T>::ordinal(kept[i])});
    }
  }

 private:
  static constexpr int64_t kSlack = 64;  // lets small depths fill a while before a cut

  int64_t depth_;
  int64_t full_;
  int64_t capacity_;
  std::unique_ptr<Key[]> kept_;  // [rows, capacity]
  std::vector<int64_t> count_;   // [rows]
  std::vector<Key> least_;       // [rows]
};

// Sorts the candidates and writes ranks skip .. skip + k - 1; -1 and -infinity where there is none.
template <typename T>
void write_ranks(std::vector<Candidate<T>>& candidates, int64_t k, int64_t skip, int64_t* index,
                 T* similarity) {
  const int64_t found = std::min<int64_t>(skip + k, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + found, candidates.end(),
                    ranks_before<T>);
  for (int64_t rank = 0; rank < k; ++rank) {
    const bool taken = skip + rank < found;
    index[rank] = taken ? candidates[skip + rank].index : -1;
    similarity[rank] =
        taken ? candidates[skip + rank].similarity : -std::numeric_limits<T>::infinity();
  }
}

}  // namespace usucl::cpu
