// The rules of csrc/core: which key counts, the order of candidates, dtypes, the loss of a row.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/dtypes.h"
#include "core/loss.h"
#include "core/ordering.h"
#include "core/problem.h"
#include "core/relation.h"
#include "core/similarity.h"

namespace {

using namespace usucl;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

void test_relation() {
  const Window window{0.2f, 0.5f};
  const FrameTag anchor{3, 1.0f, 7};
  CHECK(relation(anchor, {3, 1.3f, 7}, window) == Relation::kIntraVideo);
  CHECK(relation(anchor, {3, 0.7f, 7}, window) == Relation::kIntraVideo);
  CHECK(relation(anchor, {3, 1.1f, 7}, window) == Relation::kIgnored);     // too near
  CHECK(relation(anchor, {3, 1.6f, 7}, window) == Relation::kIgnored);     // too far
  CHECK(relation(anchor, {3, 1.3f, 8}, window) == Relation::kIntraVideo);  // the video wins
  CHECK(relation(anchor, {4, 1.0f, 8}, window) == Relation::kCrossVideo);
  CHECK(relation(anchor, {4, 1.0f, 7}, window) == Relation::kIgnored);  // same patient
  CHECK(relation(anchor, {4, 1.0f, -1}, window) == Relation::kCrossVideo);
  CHECK(relation({3, 1.0f, -1}, {4, 1.0f, -1}, window) == Relation::kCrossVideo);
  CHECK(relation(anchor, {-1, 1.3f, 7}, window) == Relation::kIgnored);
  CHECK(relation({-1, 1.0f, 7}, {4, 1.0f, 8}, window) == Relation::kIgnored);
  CHECK(relation(anchor, {3, kNan, 7}, window) == Relation::kIgnored);
  CHECK(relation({3, kInf, 7}, {3, kInf, 7}, {0.0f, kInf}) == Relation::kIgnored);
  CHECK(relation(anchor, {3, 1.0f, 7}, {0.0f, kInf}) == Relation::kIgnored);  // |dt| = 0
  CHECK(relation(anchor, {3, 1.3f, 7}, {0.5f, 0.2f}) == Relation::kIgnored);  // empty window
  CHECK(relation(anchor, {3, 1.3f, 7}, {kNan, kInf}) == Relation::kIgnored);
}

// What is known about groups of frames or from short tags never contradicts the pairs themselves.
void test_shortcuts() {
  std::vector<FrameTag> tags;
  const int64_t far = int64_t{1} << 40;  // the same low bits as 0
  for (const int64_t video : {int64_t{-1}, int64_t{0}, int64_t{1}, far}) {
    for (const int64_t patient : {int64_t{-1}, int64_t{0}, int64_t{1}, far}) {
      tags.push_back({video, 0.0f, patient});
    }
  }
  const Window all{0.0f, kInf};
  for (const FrameTag& a : tags) {
    for (const FrameTag& b : tags) {
      CHECK(crosses(a, b) == (relation(a, b, all) == Relation::kCrossVideo));
      if (never_cross({a.video, a.patient}, {b.video, b.patient})) CHECK(!crosses(a, b));
      if (a.is_empty()) continue;
      if (surely_crosses(ShortTag::of_anchor(a), ShortTag::of_key(b))) CHECK(crosses(a, b));
    }
  }
  CHECK(surely_crosses(ShortTag::of_anchor(tags[4]), ShortTag::of_key(tags[8])));
  CHECK(!surely_crosses(ShortTag::of_anchor(tags[4]), ShortTag::none()));
  const int64_t ids[] = {3, 3, 4, -1, -1}, rows[] = {0, 1, 2, 3, 4};
  CHECK(common_id(ids, rows, 1) == 3 && common_id(ids, rows, 2) == 3);
  CHECK(common_id(ids, rows, 3) == CommonIds::kNone && common_id(nullptr, rows, 1) < 0);
  CHECK(common_id(ids, rows + 3, 2) == CommonIds::kNone);
}

void test_valid_similarity() {
  CHECK(valid_similarity(0.5f, kInf));
  CHECK(valid_similarity(0.5f, 0.5f));
  CHECK(!valid_similarity(0.51f, 0.5f));
  CHECK(!valid_similarity(kNan, kInf));
  CHECK(!valid_similarity(kInf, kInf));
  CHECK(!valid_similarity(-kInf, kInf));
}

// Irreflexive, total and transitive, over every triple of a set with ties and both zeros.
void test_order() {
  std::vector<Candidate<float>> all;
  int64_t index = 0;
  for (const float s : {0.0f, -0.0f, 1.0f, 1.0f, -1.0f, 0.5f}) all.push_back({s, index++});
  for (const auto& a : all) {
    CHECK(!ranks_before(a, a));
    for (const auto& b : all) {
      CHECK(a.index == b.index || ranks_before(a, b) != ranks_before(b, a));
      for (const auto& c : all) {
        CHECK(!(ranks_before(a, b) && ranks_before(b, c)) || ranks_before(a, c));
      }
    }
  }
  CHECK(ranks_before<float>({0.0f, 0}, {-0.0f, 1}) && ranks_before<float>({-0.0f, 0}, {0.0f, 1}));
}

template <typename T>
void test_ordered_bits() {
  const T least = std::numeric_limits<T>::denorm_min(), most = std::numeric_limits<T>::max();
  const T ascending[] = {-std::numeric_limits<T>::infinity(), -most, -1, -least, 0, least, 1, most,
                         std::numeric_limits<T>::infinity()};
  typename BitsOf<T>::Type before = 0;
  for (const T x : ascending) {
    CHECK(ordered_bits(x) > before && from_ordered_bits<T>(ordered_bits(x)) == x);
    before = ordered_bits(x);
  }
}

void test_depth() {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  CHECK((Ranks{3, 2}.depth(100) == 5 && Ranks{3, 2}.depth(4) == 4 && Ranks{3, 2}.depth(2) == 0));
  CHECK((Ranks{0, 2}.depth(100) == 0 && Ranks{kMost, kMost}.depth(7) == 0));
  CHECK((Ranks{kMost, 6}.depth(7) == 7));
}

// Keys 0 .. 4 lie in three blocks; the second is empty.
void test_places() {
  Frames blocks[3] = {};
  blocks[0].embedding.rows = 2;
  blocks[2].embedding.rows = 3;
  for (int64_t index = 0; index < 5; ++index) {
    const KeyPlace place = place_of(blocks, index);
    CHECK(place.block == (index < 2 ? blocks : blocks + 2));
    CHECK(place.row == (index < 2 ? index : index - 2));
  }
}

// Every 16-bit pattern against the value defined by the format.
void test_dtypes() {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto pattern = static_cast<uint16_t>(bits);
    const int sign = bits & 0x8000u ? -1 : 1;
    const int exponent = bits >> 10 & 0x1f, fraction = bits & 0x3ff;
    const float half = upcast(Float16{pattern});
    if (exponent == 31) {
      CHECK(fraction ? std::isnan(half) : half == sign * kInf);
    } else {
      const double value =
          exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
      CHECK(half == sign * value && std::signbit(half) == (sign < 0));
    }
    const float brain = upcast(BFloat16{pattern});
    uint32_t back;
    std::memcpy(&back, &brain, sizeof back);
    CHECK(back == bits << 16);
  }
}

void test_similarity_is_a_fused_chain() {
  const float a[] = {1.0f + 0x1p-12f, 1.0f}, b[] = {1.0f + 0x1p-12f, -1.0f};
  // The unfused product rounds to 1 + 2^-11; fused, its last bit 2^-24 affects the rounded sum.
  const float fused = similarity<float>([&](int64_t d) { return b[1 - d] * (d == 0 ? -1 : 1); },
                                        [&](int64_t d) { return a[1 - d] * (d == 0 ? -1 : 1); }, 2);
  CHECK(fused == std::fmaf(a[0], b[0], -1.0f));
  const float tiny = 1e-30f;
  const float zero =
      similarity<float>([&](int64_t) { return -tiny; }, [&](int64_t) { return tiny; }, 1);
  CHECK(zero == 0.0f && !std::signbit(zero));
}

// A bank of 2^26 + 1 keys of 512 dimensions: its last element is beyond 2^35.
void test_offsets() {
  const int64_t rows = (int64_t{1} << 26) + 1, dim = 512;
  const Matrix bank{nullptr, DType::kFloat32, rows, dim};
  CHECK(bank.offset(rows - 1, dim - 1) == (int64_t{1} << 35) + 511);
}

// weights [positives], or null.
double loss_at(const std::vector<double>& s, const double* weights, int64_t positives,
               int64_t intra, double t, double soft, bool use_soft,
               std::vector<double>* gradient = nullptr) {
  const auto cross = static_cast<int64_t>(s.size()) - positives - intra;
  std::vector<double> by(s.size());
  RowDerivatives<double> d{by.data(), by.data() + positives, by.data() + positives + intra, 0, 0};
  const double loss = row_loss<Alone, double>({s.data(), weights, positives, s.data() + positives,
                                               intra, s.data() + positives + intra, cross},
                                              {t, soft, use_soft}, &d);
  if (gradient != nullptr) {
    *gradient = by;
    gradient->push_back(d.temperature);
    gradient->push_back(d.soft_nn_temperature);
  }
  return loss;
}

// Logits beyond the range of double: a negative infinitely far below the positive has no share, one
// infinitely far above makes the loss NaN and every derivative by a negative 0.
void test_infinite_logits() {
  constexpr double kHuge = 1e308, kT = 1e-3;
  std::vector<double> by;
  for (const bool soft : {false, true}) {
    const double near = loss_at({0.5, 0.25}, nullptr, 1, 0, kT, kT, soft);
    CHECK(loss_at({0.5, 0.25, -kHuge}, nullptr, 1, 0, kT, kT, soft, &by) == near);
    for (const double derivative : by) CHECK(is_finite(derivative));
    CHECK(by[2] == 0);
    CHECK(loss_at({0.5, -kHuge}, nullptr, 1, 0, kT, kT, soft, &by) == 0);
    for (const double derivative : by) CHECK(derivative == 0);
    CHECK(std::isnan(loss_at({0.5, kHuge, 0.25}, nullptr, 1, 1, kT, kT, soft, &by)));
    for (size_t i = 1; i < by.size(); ++i) CHECK(by[i] == 0);
    CHECK(std::isnan(loss_at({kHuge, kHuge}, nullptr, 1, 0, kT, kT, soft, &by)));
    CHECK(loss_at({kHuge, 0.25}, nullptr, 1, 0, kT, kT, soft, &by) == 0);
    for (const double derivative : by) CHECK(derivative == 0);
  }
  const double weights[] = {1, 0};  // a positive without weight does not make the loss overflow
  CHECK(loss_at({0.5, -kHuge, 0.25}, weights, 2, 1, kT, kT, false, &by) ==
        loss_at({0.5, 0.25}, nullptr, 1, 1, kT, kT, false));
  for (const double derivative : by) CHECK(is_finite(derivative));
}

void test_valid_temperatures() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double t : {0.0, -0.07, std::nan(""), kInfinity, 1e-310}) {
    CHECK(!(Temperatures<double>{t, 1, false}.valid()));
    CHECK(!(Temperatures<double>{1, t, true}.valid()));
    CHECK((Temperatures<double>{1, t, false}.valid()));
  }
}

// Derivatives against central differences, for every mix of groups.
void test_loss_derivatives(const double* weights) {
  std::mt19937 random(0);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t positives = 1 + trial % 3, intra = trial / 3 % 4, cross = trial / 12 % 5;
    const bool soft = trial % 2 == 0;
    std::vector<double> s(positives + intra + cross), gradient;
    for (double& x : s) x = uniform(random);
    const double t = 0.3, tau = 0.2, h = 1e-6;
    const double loss = loss_at(s, weights, positives, intra, t, tau, soft, &gradient);
    CHECK(loss >= 0 && (loss > 0 || intra + cross == 0));
    for (size_t i = 0; i < s.size() + 2; ++i) {
      double values[2];
      for (int side = 0; side < 2; ++side) {
        std::vector<double> moved = s;
        const double step = side == 0 ? -h : h;
        if (i < s.size()) moved[i] += step;
        values[side] = loss_at(moved, weights, positives, intra, t + (i == s.size() ? step : 0),
                               tau + (i == s.size() + 1 ? step : 0), soft);
      }
      // Central differences: truncation h^2 and cancellation 1e-16 / h, both below 1e-8 here.
      CHECK(std::fabs((values[1] - values[0]) / (2 * h) - gradient[i]) < 1e-7);
    }
  }
}

}  // namespace

int main() {
  test_relation();
  test_shortcuts();
  test_valid_similarity();
  test_order();
  test_ordered_bits<float>();
  test_ordered_bits<double>();
  test_depth();
  test_places();
  test_dtypes();
  test_similarity_is_a_fused_chain();
  test_offsets();
  const double weights[] = {0.5, 2, 0};
  test_infinite_logits();
  test_valid_temperatures();
  test_loss_derivatives(nullptr);
  test_loss_derivatives(weights);
  return 0;
}
