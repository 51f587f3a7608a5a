// Every instruction set's score tile gives the bits of the fused chain, and the same hits.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/similarity.h"
#include "cpu/tile.h"

namespace {

using namespace usucl;
using namespace usucl::cpu;

template <typename T>
void test_tile(const TileKernels<T>& kernels, int64_t dim) {
  const int height = kernels.tile_anchors, width = kernels.tile_keys;
  CHECK(height <= kMaxTileAnchors && width <= kMaxTileKeys);
  std::mt19937 random(static_cast<unsigned>(dim));
  std::normal_distribution<T> normal;
  std::vector<T> anchors(dim * height), keys(dim * width), threshold(height),
      scores(height * width);
  for (T& x : anchors) x = normal(random);
  for (T& x : keys) x = normal(random);
  if (dim > 2) keys[width + 1] = std::numeric_limits<T>::quiet_NaN();  // key 1
  for (T& x : threshold) x = normal(random);
  std::vector<uint32_t> hits(height);
  const bool any = kernels.score_tile(anchors.data(), keys.data(), dim, threshold.data(),
                                      scores.data(), hits.data());
  bool expect_any = false;
  for (int i = 0; i < height; ++i) {
    std::vector<T> row(dim), row_scores(width);
    for (int64_t d = 0; d < dim; ++d) row[d] = anchors[d * height + i];
    kernels.score_row(row.data(), keys.data(), dim, row_scores.data());
    for (int j = 0; j < width; ++j) {
      const T s = similarity<T>([&](int64_t d) { return row[d]; },
                                [&](int64_t d) { return keys[d * width + j]; }, dim);
      const bool hit = s > threshold[i];
      expect_any |= hit;
      CHECK((hits[i] >> j & 1u) == (hit ? 1u : 0u));
      CHECK(canonical(row_scores[j]) == s || (std::isnan(s) && std::isnan(row_scores[j])));
      if (any) CHECK(canonical(scores[i * width + j]) == s || std::isnan(s));
    }
  }
  CHECK(any == expect_any);
  threshold.assign(height, std::numeric_limits<T>::infinity());
  CHECK(!kernels.score_tile(anchors.data(), keys.data(), dim, threshold.data(), scores.data(),
                            hits.data()));
}

}  // namespace

int main() {
  for (const auto capability : {Capability::kPortable, Capability::kAvx2, Capability::kAvx512}) {
    if (!runs_here(capability)) {
      std::printf("%s: not run, this machine has it not\n", name(capability));
      continue;
    }
    for (const int64_t dim : {1, 2, 7, 63, 128, 513}) {
      test_tile(tile_kernels<float>(capability), dim);
      test_tile(tile_kernels<double>(capability), dim);
    }
    std::printf("%s: right\n", name(capability));
  }
  return 0;
}
