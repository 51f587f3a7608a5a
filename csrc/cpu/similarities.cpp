#include "kernels.h"

#include <limits>

#include "parallel.h"
#include "tile/pair_batch.h"

namespace usucl::cpu {

template <typename T>
void similarities(const ScoredPairs<T>& pairs) {
  constexpr int64_t kAhead = 2 * kMaxPairs;  // keys lie anywhere in memory: prefetched
  const int64_t per_anchor = pairs.per_anchor;
  const auto write = [&](int64_t pair, T value) { pairs.similarity[pair] = value; };
  const auto work = [&](int64_t begin, int64_t end) {
    PairBatch<T, int64_t> batch(tile_kernels<T>(capability_in_use()), pairs.anchors);
    for (int64_t pair = begin * per_anchor; pair < end * per_anchor; ++pair) {
      const int64_t later = pair + kAhead;
      if (later < end * per_anchor && pairs.is_key(pairs.index[later])) {
        prefetch_row(pairs.keys, pairs.index[later]);
      }
      const int64_t key = pairs.index[pair];
      if (pairs.is_key(key)) {
        batch.add(pair / per_anchor, pairs.keys, key, pair, write);
      } else {
        write(pair, -std::numeric_limits<T>::infinity());
      }
    }
    batch.flush(write);
  };
  parallel_for(pairs.anchors.rows, grain_for(4 * pairs.anchors.dim * per_anchor), work);
}

template void similarities(const ScoredPairs<float>&);
template void similarities(const ScoredPairs<double>&);

}  // namespace usucl::cpu
