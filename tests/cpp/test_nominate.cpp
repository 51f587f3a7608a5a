// Nominations differ from the canonical chain by at most their margin, so that selecting through
// them gives the chain's selection.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/nomination.h"
#include "core/problem.h"
#include "core/similarity.h"
#include "cpu/kernels.h"
#include "cpu/search/aligned.h"
#include "cpu/tile/bfloat16.h"
#include "cpu/tile/rows.h"
#include "kernels_for_tests.h"
#include "parallel_for_tests.h"

namespace {

using namespace usucl;
using namespace usucl::cpu;

// Rows of any dtype, rounded from float values.
struct Rows {
  DType dtype;
  int64_t dim;
  std::vector<uint16_t> narrow;
  std::vector<float> wide;

  Rows(const std::vector<float>& values, DType type, int64_t d)
      : dtype(type), dim(d), wide(values) {
    for (const float x : values) narrow.push_back(type == DType::kFloat16 ? half(x) : brain(x));
  }

  static uint16_t brain(float x) { return round_to_bfloat16(x); }

  // Truncates; magnitudes must be 2^-14 to 2^15, smaller ones become zero.
  static uint16_t half(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const int exponent = static_cast<int>(bits >> 23 & 0xff) - 127 + 15;
    if (exponent <= 0) return 0;
    return static_cast<uint16_t>((bits >> 16 & 0x8000u) | exponent << 10 | (bits >> 13 & 0x3ffu));
  }

  int64_t count() const { return static_cast<int64_t>(wide.size()) / dim; }

  Matrix matrix() const {
    const void* data = dtype == DType::kFloat32 ? static_cast<const void*>(wide.data())
                                                : static_cast<const void*>(narrow.data());
    return {data, dtype, count(), dim};
  }
};

double norm(const Matrix& matrix, int64_t row) {
  double squared = 0;
  for (int64_t d = 0; d < matrix.dim; ++d) {
    squared += std::pow(element<double>(matrix, row, d), 2);
  }
  return std::sqrt(squared);
}

// Compares one anchor with all keys: every nomination with its similarity.
void check_margin(const TileKernels<float>& kernels, const Rows& anchors, const Rows& keys) {
  const Matrix q = anchors.matrix(), k = keys.matrix();
  const BFloat16Kernels& nominate = *kernels.bfloat16;
  const int64_t dim = q.dim, width = kernels.tile_keys, height = nominate.tile_anchors;
  const int64_t multiple = nominate.steps_multiple;
  const int64_t steps = ((dim + 1) / 2 + multiple - 1) / multiple * multiple;
  std::vector<uint32_t> anchor_pairs(steps * height);
  const auto panel = aligned_array<uint32_t>(steps * width);
  std::fill_n(panel.get(), steps * width, 0u);
  std::vector<double> lost(dim);
  for (int64_t d = 0; d < dim; ++d) {
    const BFloat16 rounded{round_to_bfloat16(element<float>(q, 0, d))};
    lost[d] = element<double>(q, 0, d) - double{upcast(rounded)};
    anchor_pairs[d / 2 * (nominate.anchors_by_row ? 1 : height)] |= uint32_t{rounded.bits}
                                                                    << (d % 2 == 0 ? 0 : 16);
  }
  const Norms anchor{static_cast<float>(norm(q, 0)),
                     static_cast<float>(norm({lost.data(), DType::kFloat64, 1, dim}, 0))};
  const NominationMargin margin(bfloat16_errors(dim));
  std::vector<float> dot_product(height * width);
  std::vector<uint64_t> hits(height);
  for (int64_t j = 0; j < keys.count(); ++j) {
    // Packed alone, so that the norms are its own.
    const void* row = row_of(k, j);
    const Norms key = nominate.pack_keys(&row, k.dtype, 1, dim, panel.get());
    const float lost_bits = k.dtype == DType::kBFloat16 ? 0 : 0x1p-8f;
    CHECK(key.row + 0x1p-62 * std::sqrt(dim) >= norm(k, j) * (1 - 1e-5));
    CHECK(key.lost <= 1.01f * (lost_bits * key.row + std::sqrt(dim) * 0x1p-126f));
    const float s = similarity<float>([&](int64_t d) { return element<float>(q, 0, d); },
                                      [&](int64_t d) { return element<float>(k, j, d); }, dim);
    const float allowed = margin(anchor, key);
    // A limit just below similarity - margin must nominate; one above similarity + margin must not.
    for (const bool above : {false, true}) {
      const float limit =
          above ? std::nextafter(s + allowed, std::numeric_limits<float>::infinity())
                : std::nextafter(s - allowed, -std::numeric_limits<float>::infinity());
      std::vector<float> limits(height, std::numeric_limits<float>::infinity());
      limits[0] = limit;
      hits.assign(height, 0);
      if (nominate.begin != nullptr) nominate.begin();
      const bool any = nominate.nominate_tile(anchor_pairs.data(), panel.get(), steps,
                                              limits.data(), dot_product.data(), hits.data());
      if (nominate.end != nullptr) nominate.end();
      CHECK((hits[0] & 1u) == (above ? 0u : 1u));
      if (any) CHECK(std::abs(double{dot_product[0]} - double{s}) <= double{allowed});
    }
  }
}

void test_margin(const TileKernels<float>& kernels) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (const int64_t dim : {1, 2, 3, 31, 64, 129, 1000}) {
    for (const DType q : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      for (const DType k : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
        std::vector<float> a(dim), b(dim * 5);
        for (float& x : a) x = normal(random);
        for (float& x : b) x = normal(random);
        check_margin(kernels, Rows(a, q, dim), Rows(b, k, dim));
        // The worst rounding: every element half way to the next, all products of one sign.
        for (float& x : a) x = 1 + 0x1p-8f + 0x1p-12f;
        for (float& x : b) x = 1 + 0x1p-8f + 0x1p-10f;
        check_margin(kernels, Rows(a, q, dim), Rows(b, k, dim));
        // The worst summation: a large term first, then many just above half its ulp.
        for (int64_t d = 0; d < dim; ++d) a[d] = d == 0 ? 1.0f : 0x1p-12f;
        for (int64_t i = 0; i < 5 * dim; ++i) b[i] = i % dim == 0 ? 1.0f : 0x1.02p-12f;
        check_margin(kernels, Rows(a, q, dim), Rows(b, k, dim));
        // Cancellation: the sum is far below its terms.
        for (int64_t d = 0; d < dim; ++d)
          a[d] = (d % 2 == 0 ? 1.0f : -1.0f) * (1 + 0x1p-7f * (d % 5));
        for (float& x : b) x = 1.0f;
        check_margin(kernels, Rows(a, q, dim), Rows(b, k, dim));
      }
    }
    // Subnormal numbers, which the instructions read as zero.
    std::vector<float> tiny(dim, 0x1p-130f), one(dim, 1.0f);
    check_margin(kernels, Rows(one, DType::kBFloat16, dim), Rows(tiny, DType::kBFloat16, dim));
    check_margin(kernels, Rows(tiny, DType::kFloat32, dim), Rows(one, DType::kBFloat16, dim));
  }
}

// Keys within a margin of each other, many equal keys, infinities and NaN. Every `every`th key is
// one of the first `near` anchors, or almost; the others are random. guarded: whatever is more
// similar to the first anchor than itself is invalid for all anchors.
void test_selection(const TileKernels<float>& kernels, DType anchor_dtype, DType key_dtype,
                    int64_t every, int64_t near, bool guarded) {
  const int64_t rows = 21, count = 5200, dim = 40, k = 4;  // enough keys for nomination
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> a(rows * dim), b(count * dim);
  for (float& x : a) x = normal(random);
  for (int64_t j = 0; j < count; ++j) {
    const float* anchor = &a[j / every % near * dim];
    for (int64_t d = 0; d < dim; ++d) {
      b[j * dim + d] = j % every != 0   ? normal(random)
                       : j / 7 % 3 == 0 ? anchor[d]
                                        : anchor[d] + 0.002f * normal(random);
    }
  }
  b[100 * dim] = std::numeric_limits<float>::infinity();
  b[200 * dim] = std::numeric_limits<float>::quiet_NaN();
  b[300 * dim] = 3e38f;  // its norm is too large for nomination
  const Rows anchors(a, anchor_dtype, dim), keys(b, key_dtype, dim);
  std::vector<int64_t> anchor_video(rows), key_video(count);
  for (int64_t i = 0; i < rows; ++i) anchor_video[i] = i % 4;
  for (int64_t j = 0; j < count; ++j) key_video[j] = j % 7 - 1;
  const std::vector<float> anchor_time(rows, 0.0f), key_time(count, 0.5f);
  const float window[] = {0.1f, 1.0f};
  const Frames block{keys.matrix(), key_video.data(), key_time.data(), nullptr};
  const Problem problem{
      {anchors.matrix(), anchor_video.data(), anchor_time.data(), nullptr},
      &block,
      1,
      window,
      false,
      {k, 0},
      {k, 1},
      guarded ? std::pow(norm(anchors.matrix(), 0), 2) : std::numeric_limits<double>::infinity()};
  struct Selected {
    std::vector<int64_t> intra_index, cross_index;
    std::vector<float> intra_similarity, cross_similarity;
  };
  const auto select = [&](const TileKernels<float>& with) {
    Selected s{std::vector<int64_t>(rows * k), std::vector<int64_t>(rows * k),
               std::vector<float>(rows * k), std::vector<float>(rows * k)};
    select_negatives<float>(problem, nullptr,
                            {s.intra_index.data(), s.intra_similarity.data(), s.cross_index.data(),
                             s.cross_similarity.data()},
                            with);
    return s;
  };
  for (const int64_t threads : {1, 2}) {
    set_num_threads(threads);
    const Selected found = select(kernels),
                   expected = select(tile_kernels<float>(Capability::kPortable));
    CHECK(found.intra_index == expected.intra_index && found.cross_index == expected.cross_index);
    CHECK(found.intra_similarity == expected.intra_similarity);
    CHECK(found.cross_similarity == expected.cross_similarity);
  }
}

// An anchor's element that rounds to infinity: its product is finite, but its nomination is not.
void test_overflow(const TileKernels<float>& kernels) {
  const std::vector<float> a{3.4e38f, 1.0f}, b{-0x1p-7f, 0.0f};
  const Rows anchors(a, DType::kFloat32, 2), keys(b, DType::kBFloat16, 2);
  const int64_t anchor_video[] = {0}, key_video[] = {1};
  const float time[] = {0.0f};
  const Frames block{keys.matrix(), key_video, time, nullptr};
  const Problem problem{
      {anchors.matrix(), anchor_video, time, nullptr}, &block, 1, nullptr, false, {0, 0}, {1, 0},
      std::numeric_limits<double>::infinity()};
  int64_t index[] = {-2};
  float similarity[1];
  select_negatives<float>(problem, nullptr, {nullptr, nullptr, index, similarity}, kernels);
  CHECK(index[0] == 0 && similarity[0] == 3.4e38f * -0x1p-7f);
}

}  // namespace

int main() {
  for (const auto& [name, kernels] : kernels_to_try<float>()) {
    if (kernels.bfloat16 == nullptr) continue;
    test_margin(kernels);
    test_overflow(kernels);
    for (const DType anchors : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      for (const DType keys : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
        test_selection(kernels, anchors, keys, 1, 1, false);    // too many nominees: chain
        test_selection(kernels, anchors, keys, 20, 17, false);  // few nominees
        test_selection(kernels, anchors, keys, 20, 2, true);
      }
    }
    std::printf("%s: right\n", name.c_str());
  }
  return 0;
}
