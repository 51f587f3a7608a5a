// Keeps the hardest candidates of one anchor without sorting as they come.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "../core/ordering.h"

namespace usucl::cpu {

// Holds at least the `depth` best of all that was added: candidates are appended, and when twice
// the depth is reached all but the best `depth` are dropped. No candidate that ranks is ever lost.
template <typename T>
class Reservoir {
 public:
  explicit Reservoir(int64_t depth = 0) : depth_(depth) {}

  // A candidate added after all of those kept, with a higher index, ranks only above this.
  T threshold() const { return threshold_; }

  void add(const Candidate<T>& candidate) {
    kept_.push_back(candidate);
    if (static_cast<int64_t>(kept_.size()) >= 2 * depth_ + kSlack) drop_all_but_best();
  }

  const std::vector<Candidate<T>>& kept() const { return kept_; }

 private:
  static constexpr int64_t kSlack = 32;  // lets small depths fill a while before partitioning

  void drop_all_but_best() {
    const auto last = kept_.begin() + (depth_ - 1);
    std::nth_element(kept_.begin(), last, kept_.end(), ranks_before<T>);
    threshold_ = last->similarity;
    kept_.resize(depth_);
  }

  int64_t depth_;
  T threshold_ = -std::numeric_limits<T>::infinity();
  std::vector<Candidate<T>> kept_;
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
