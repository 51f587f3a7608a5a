// Every instruction set's kernels give the bits of the fused chain, and the same hits. Tile shapes
// that this machine has no registers for run on plain lanes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/problem.h"
#include "core/similarity.h"
#include "cpu/kernels.h"
#include "kernels_for_tests.h"

namespace {

using namespace usucl;
using namespace usucl::cpu;

template <typename T>
struct RandomTile {
  std::vector<T> anchors, keys, limit;  // [D, height], [D, width], [height]

  RandomTile(int64_t dim, int64_t height, int64_t width)
      : anchors(dim * height), keys(dim * width), limit(height) {
    std::mt19937 random(static_cast<unsigned>(dim));
    std::normal_distribution<T> normal;
    for (T& x : anchors) x = normal(random);
    for (T& x : keys) x = normal(random);
    if (dim > 2) keys[width + 1] = std::numeric_limits<T>::quiet_NaN();  // key 1
    for (T& x : limit) x = normal(random);
  }
};

template <typename T>
void test_tile(const TileKernels<T>& kernels, int64_t dim) {
  const int height = kernels.tile_anchors, width = kernels.tile_keys;
  CHECK(height <= kMaxTileAnchors && width <= kMaxTileKeys);
  RandomTile<T> tile(dim, height, width);
  std::vector<T> scores(height * width);
  std::vector<uint64_t> hits(height);
  const bool any = kernels.score_tile(tile.anchors.data(), tile.keys.data(), dim, tile.limit.data(),
                                      scores.data(), hits.data());
  bool expect_any = false;
  std::vector<T> anchor(dim), key(dim);
  for (int i = 0; i < height; ++i) {
    for (int j = 0; j < width; ++j) {
      for (int64_t d = 0; d < dim; ++d) {
        anchor[d] = tile.anchors[d * height + i];
        key[d] = tile.keys[d * width + j];
      }
      const T s = similarity<T>([&](int64_t d) { return anchor[d]; },
                                [&](int64_t d) { return key[d]; }, dim);
      const void *anchors[kMaxPairs], *keys[kMaxPairs];
      std::fill_n(anchors, kernels.pairs, key.data());
      std::fill_n(keys, kernels.pairs, key.data());
      const int lane = (i + j) % kernels.pairs;
      anchors[lane] = anchor.data();
      T pairs[kMaxPairs];
      constexpr DType kDType = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;
      kernels.score_pairs(anchors, kDType, keys, kDType, dim, pairs);
      const T pair = pairs[lane];
      const bool hit = s > tile.limit[i];
      expect_any |= hit;
      CHECK(canonical(pair) == s || (std::isnan(s) && std::isnan(pair)));
      if (any) CHECK((hits[i] >> j & 1u) == (hit ? 1u : 0u));
      if (any) CHECK(canonical(scores[i * width + j]) == s || std::isnan(s));
    }
  }
  CHECK(any == expect_any);
  tile.limit.assign(height, std::numeric_limits<T>::infinity());
  CHECK(!kernels.score_tile(tile.anchors.data(), tile.keys.data(), dim, tile.limit.data(),
                            scores.data(), hits.data()));
}

// Every dtype, full and partial panels, rows that end where the memory ends.
template <typename T>
void test_pack(const TileKernels<T>& kernels, DType dtype, int bytes, int64_t dim) {
  const int width = kernels.tile_keys;
  for (const int count : {1, width / 2, width}) {
    std::vector<unsigned char> data(count * dim * bytes);
    std::mt19937 random(static_cast<unsigned>(dim));
    for (auto& byte : data) byte = static_cast<unsigned char>(random());
    const Matrix matrix{data.data(), dtype, count, dim};
    std::vector<const void*> rows;
    for (int j = 0; j < count; ++j) rows.push_back(data.data() + (count - 1 - j) * dim * bytes);
    std::vector<T> panel(dim * width);
    kernels.pack_keys(rows.data(), dtype, count, dim, panel.data());
    for (int j = 0; j < count; ++j) {
      for (int64_t d = 0; d < dim; ++d) {
        const T expected = element<T>(matrix, count - 1 - j, d), found = panel[d * width + j];
        CHECK(found == expected || (std::isnan(found) && std::isnan(expected)));
      }
    }
  }
}

template <typename T>
void test_kernels(const TileKernels<T>& kernels) {
  for (const int64_t dim : {1, 2, 7, 63, 128, 513}) {
    test_tile(kernels, dim);
    test_pack(kernels, DType::kFloat32, 4, dim);
    test_pack(kernels, DType::kFloat64, 8, dim);
    test_pack(kernels, DType::kBFloat16, 2, dim);
    test_pack(kernels, DType::kFloat16, 2, dim);
  }
  std::vector<BFloat16> row(19);
  std::vector<T> sum(19), expected_sum(19);
  for (int d = 0; d < 19; ++d) {
    row[d].bits = static_cast<uint16_t>(0x3f80 + 37 * d);
    sum[d] = expected_sum[d] = T(1) / (d + 3);
    const T product = T(0.3) * static_cast<T>(upcast(row[d]));  // rounded, then added
    expected_sum[d] += product;
  }
  kernels.add_scaled(T(0.3), row.data(), DType::kBFloat16, 19, sum.data());
  CHECK(sum == expected_sum);
  const T expected = 12 * T(1), found = kernels.multiply_adds(100000);  // each chain tends to 1
  CHECK(std::abs(found - expected) < T(1e-3));
}

}  // namespace

int main() {
  for (const auto& [name, kernels] : kernels_to_try<float>()) {
    test_kernels(kernels);
    std::printf("%s: right\n", name.c_str());
  }
  for (const auto& [name, kernels] : kernels_to_try<double>()) {
    test_kernels(kernels);
    std::printf("%s, float64: right\n", name.c_str());
  }
  return 0;
}
