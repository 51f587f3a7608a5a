// Keeps the hardest candidates of many anchors without sorting each one in.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "rank.h"

namespace usucl::cpu {

// Keeps at least the `depth` best of all that was added to each row. Candidates are appended; once
// a row could not take `burst` more, about half of them are dropped, none of which can rank.
template <typename T>
class Reservoirs {
 public:
  using Key = typename Rank<T>::Key;

  // num_keys: the most that can be added to a row. burst: the most between two calls of trim.
  Reservoirs(int64_t rows, int64_t depth, int64_t num_keys, int64_t burst)
      : depth_(depth),
        full_(std::min(depth + std::max(depth, kSlack), num_keys)),
        capacity_(full_ + burst),
        kept_(new Key[rows * capacity_]),
        count_(rows, 0),
        least_(rows, Rank<T>::kNone) {}

  // Only a candidate above this can still rank; kNone until the row has been cut.
  Key least(int64_t row) const { return least_[row]; }

  void add(int64_t row, Key key) { kept_[row * capacity_ + count_[row]++] = key; }

  // To be called after at most `burst` additions to a row.
  void trim(int64_t row) {
    if (count_[row] <= full_) return;
    Key* kept = &kept_[row * capacity_];
    count_[row] = keep_largest(kept, count_[row], depth_, depth_ + (full_ - depth_) / 2);
    least_[row] = kept[count_[row] - 1];
  }

  void append(int64_t row, std::vector<Key>* out) const {
    const Key* kept = &kept_[row * capacity_];
    out->insert(out->end(), kept, kept + count_[row]);
  }

 private:
  static constexpr int64_t kSlack = 32;  // small depths are cut rarely

  int64_t depth_;
  int64_t full_;
  int64_t capacity_;
  std::unique_ptr<Key[]> kept_;  // [rows, capacity], uninitialised
  std::vector<int64_t> count_;   // [rows]
  std::vector<Key> least_;       // [rows]
};

// Drops all but the `depth` largest.
template <typename Key>
void truncate(std::vector<Key>* keys, int64_t depth) {
  const auto count = static_cast<int64_t>(keys->size());
  if (count <= depth) return;
  keep_largest(keys->data(), count, depth, depth);
  keys->resize(depth);
}

// Sorts the candidates and writes ranks skip .. skip + k - 1; missing ones are -1 and -infinity.
template <typename T>
void write_ranks(std::vector<typename Rank<T>::Key>& candidates, int64_t k, int64_t skip,
                 int64_t* index, T* similarity) {
  truncate(&candidates, skip + k);
  std::sort(candidates.begin(), candidates.end(), std::greater<>());
  const auto found = static_cast<int64_t>(candidates.size());
  for (int64_t rank = 0; rank < k; ++rank) {
    const bool taken = skip + rank < found;
    index[rank] = taken ? Rank<T>::index(candidates[skip + rank]) : -1;
    similarity[rank] =
        taken ? Rank<T>::similarity(candidates[skip + rank]) : -std::numeric_limits<T>::infinity();
  }
}

}  // namespace usucl::cpu
