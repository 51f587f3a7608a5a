// Ranks have the order of candidates, and a cut keeps what ranks.
#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/ordering.h"
#include "cpu/search/rank.h"
#include "cpu/search/reservoir.h"

namespace {

using namespace usucl;
using namespace usucl::cpu;

template <typename T>
void test_order() {
  const T most = std::numeric_limits<T>::max(), least = std::numeric_limits<T>::denorm_min();
  std::vector<Candidate<T>> all;
  for (const T similarity : {-most, T(-1), -least, T(0), least, T(0.5), T(1), most}) {
    for (const int64_t index : {int64_t{0}, int64_t{1}, kMaxKeys - 1}) {
      all.push_back({similarity, index});
    }
  }
  for (const auto& a : all) {
    const auto key = Rank<T>::key(a.similarity, a.index);
    CHECK(Rank<T>::similarity(key) == a.similarity && Rank<T>::index(key) == a.index);
    CHECK(key > Rank<T>::kNone);
    for (const auto& b : all) {
      CHECK((key > Rank<T>::key(b.similarity, b.index)) == ranks_before(a, b));
    }
  }
}

void check_cut(std::vector<uint64_t> keys, int64_t least, int64_t most) {
  std::vector<uint64_t> sorted = keys;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const int64_t kept = keep_largest(keys.data(), static_cast<int64_t>(keys.size()), least, most);
  CHECK(least <= kept && kept <= most);
  CHECK(keys[kept - 1] == sorted[kept - 1]);
  std::sort(keys.begin(), keys.begin() + kept, std::greater<>());
  CHECK(std::equal(keys.begin(), keys.begin() + kept, sorted.begin()));
}

void test_cuts() {
  std::mt19937_64 random(7);
  for (int count = 1; count < 200; ++count) {
    std::vector<uint64_t> keys(count);
    for (int i = 0; i < count; ++i) keys[i] = i;
    for (int trial = 0; trial < 20; ++trial) {
      const auto least = static_cast<int64_t>(1 + random() % count);
      const auto most = static_cast<int64_t>(least + random() % (count - least + 1));
      if (trial == 1) std::reverse(keys.begin(), keys.end());  // ascending first, then descending
      if (trial > 1) std::shuffle(keys.begin(), keys.end(), random);
      check_cut(keys, least, most);
    }
  }
}

// However many are added at a time, the best remain in the end.
void test_reservoirs() {
  std::mt19937_64 random(9);
  for (const int64_t depth : {1, 2, 33, 200}) {
    for (const int64_t count : {1, 40, 5000}) {
      Reservoirs<float> kept(1, std::min(depth, count), count, 48);
      std::vector<uint64_t> all;
      for (int64_t i = 0; i < count; ++i) {
        const auto similarity = static_cast<float>(static_cast<int64_t>(random() % 1000) - 500);
        all.push_back(Rank<float>::key(similarity, i));
        if (all.back() > kept.least(0)) kept.add(0, all.back());
        if (i % 48 == 47) kept.trim(0);
      }
      std::vector<int64_t> index(depth), expected_index(depth);
      std::vector<float> similarity(depth), expected(depth);
      std::vector<uint64_t> candidates;
      kept.append(0, &candidates);
      write_ranks<float>(candidates, depth, 0, index.data(), similarity.data());
      std::sort(all.begin(), all.end(), std::greater<>());
      for (int64_t r = 0; r < depth; ++r) {
        CHECK(index[r] == (r < count ? Rank<float>::index(all[r]) : -1));
        CHECK(similarity[r] == (r < count ? Rank<float>::similarity(all[r])
                                          : -std::numeric_limits<float>::infinity()));
      }
    }
  }
}

}  // namespace

int main() {
  test_order<float>();
  test_order<double>();
  test_cuts();
  test_reservoirs();
  return 0;
}
