// The loss of one anchor and its derivatives with respect to every selected similarity and
// temperature.
//
// A team computes a row: one thread, or several that share every loop over the negatives. Member
// rank() of kSize takes, and alone writes, elements rank(), rank() + kSize, ...; sum() and
// greatest() give all members the same bits.
#pragma once

#include <cstdint>
#include <limits>

#include "scalar.h"

namespace usucl {

struct Alone {
  static constexpr int kSize = 1;
  static USUCL_HD int rank() { return 0; }
  template <typename T>
  static USUCL_HD T sum(T own) {
    return own;
  }
  template <typename T>
  static USUCL_HD T greatest(T own) {
    return own;
  }
};

// Calls f(j) for this member's share of 0 .. count - 1.
template <typename Team, typename Function>
USUCL_HD void for_own(int64_t count, const Function& f) {
  for (int64_t j = Team::rank(); j < count; j += Team::kSize) f(j);
}

// The sum of value(0) .. value(count - 1).
template <typename Team, typename T, typename Value>
USUCL_HD T team_sum(int64_t count, const Value& value) {
  T own = 0;
  for_own<Team>(count, [&](int64_t j) { own += value(j); });
  return Team::sum(own);
}

// The greatest of `least` and value(0) .. value(count - 1).
template <typename Team, typename T, typename Value>
USUCL_HD T team_greatest(T least, int64_t count, const Value& value) {
  for_own<Team>(count, [&](int64_t j) { least = value(j) > least ? value(j) : least; });
  return Team::greatest(least);
}

template <typename T>
struct RowSimilarities {
  const T* positive;  // [num_positives], >= 1
  const T* weight;    // [num_positives], or null: all equal
  int64_t num_positives;
  const T* intra;  // [num_intra], valid ones only
  int64_t num_intra;
  const T* cross;  // [num_cross], valid ones only
  int64_t num_cross;
};

template <typename T>
struct Temperatures {
  T logits;
  T soft_nn;  // read only with use_soft_nn
  bool use_soft_nn;

  // Positive, normal numbers, as row_loss needs them.
  USUCL_HD bool valid() const { return valid(logits) && (!use_soft_nn || valid(soft_nn)); }

  USUCL_HD T least() const { return use_soft_nn && soft_nn < logits ? soft_nn : logits; }

 private:
  static USUCL_HD bool valid(T t) {
    return t >= std::numeric_limits<T>::min() && t <= std::numeric_limits<T>::max();
  }
};

// d loss / d similarity of each pair, and the derivatives with respect to the temperatures.
template <typename T>
struct RowDerivatives {
  T* positive;  // [num_positives]
  T* intra;     // [num_intra]
  T* cross;     // [num_cross]
  T temperature;
  T soft_nn_temperature;
};

// weight * value, where a weight of 0 also outweighs an infinite value.
template <typename T>
USUCL_HD T weighed(T weight, T value) {
  return weight == T(0) ? T(0) : weight * value;
}

// x / t^2, also where t^2 is 0 or infinite.
template <typename T>
USUCL_HD T over_square(T x, T t) {
  const T square = t * t;
  return square > T(0) && is_finite(square) ? x / square : x / t / t;
}

// The soft nearest neighbour c = sum_j a_j s_j with a = softmax(s / t), and its derivatives.
template <typename Team, typename T>
struct SoftNearestNeighbour {
  const T* similarity;  // [count], count >= 1
  T temperature;
  T max;       // of the similarities
  T sum;       // of exp((s - max) / t)
  T value;     // c
  T variance;  // of s under the weights a

  USUCL_HD SoftNearestNeighbour(const T* s, int64_t count, T t) : similarity(s), temperature(t) {
    max = team_greatest<Team>(s[0], count, [&](int64_t j) { return s[j]; });
    sum = team_sum<Team, T>(count, [&](int64_t j) { return exponential((s[j] - max) / t); });
    value = team_sum<Team, T>(count, [&](int64_t j) { return weight(j) * s[j]; });
    variance = team_sum<Team, T>(
        count, [&](int64_t j) { return weighed(weighed(weight(j), s[j] - value), s[j] - value); });
  }

  USUCL_HD T weight(int64_t j) const {
    return exponential((similarity[j] - max) / temperature) / sum;
  }

  // d c / d s_j: the direct term, and the one through the weights.
  USUCL_HD T by_similarity(int64_t j) const {
    return weighed(weight(j), T(1) + (similarity[j] - value) / temperature);
  }

  USUCL_HD T by_temperature() const { return -over_square(variance, temperature); }
};

// Adds one positive's share to the derivatives and returns its loss
//     logsumexp([positive, negatives ...] / t) - positive / t.
// share is the positive's weight in the mean; add(j, g) receives share * d loss / d negative_j. The
// loss is not finite where it, or a logit that counts, overflows.
template <typename Team, typename T, typename Negative, typename Add>
USUCL_HD T info_nce(T positive, const Negative& negative, int64_t count, const Temperatures<T>& t,
                    T share, T* by_positive, T* by_temperature, const Add& add) {
  const T temperature = t.logits;
  const T max = team_greatest<Team>(positive, count, negative);
  // The sum of exp(logit - largest logit) over the negatives alone.
  const T others = team_sum<Team, T>(
      count, [&](int64_t j) { return exponential((negative(j) - max) / temperature); });
  const T own = exponential((positive - max) / temperature);
  const T sum = own + others;
  const T spread = team_sum<Team, T>(count, [&](int64_t j) {
    const T probability = exponential((negative(j) - max) / temperature) / sum;
    add(j, share * probability / temperature);
    return weighed(probability, negative(j) - positive);
  });
  *by_positive = -share * (others / sum) / temperature;  // (p_0 - 1) / t without cancellation
  *by_temperature -= over_square(weighed(share, spread), temperature);
  const T overflow = max / t.least();
  if (others > T(0) && !is_finite(overflow)) return overflow;
  return positive == max ? logarithm_1p(others) : logarithm(sum) + (max - positive) / temperature;
}

// The weighted mean, over the positives, of the loss with each one alone. Without negatives the
// loss and its derivatives are 0. Where the loss or a logit that counts overflows, the loss is NaN
// and all derivatives but those by the positives are 0.
template <typename Team, typename T>
USUCL_HD T row_loss(const RowSimilarities<T>& s, const Temperatures<T>& t, RowDerivatives<T>* by) {
  by->temperature = 0;
  by->soft_nn_temperature = 0;
  if (s.num_intra + s.num_cross == 0) {
    for_own<Team>(s.num_positives, [&](int64_t r) { by->positive[r] = 0; });
    return 0;
  }
  const auto weight = [&](int64_t r) { return s.weight == nullptr ? T(1) : s.weight[r]; };
  T total = 0;
  for (int64_t r = 0; r < s.num_positives; ++r) total += weight(r);
  const T scale = T(1) / total;
  const auto mean = [&](const auto& negative, int64_t count, const auto& add) {
    T loss = 0;
    for (int64_t r = 0; r < s.num_positives; ++r) {
      T by_positive = 0;
      const T own = info_nce<Team>(s.positive[r], negative, count, t, weight(r) * scale,
                                   &by_positive, &by->temperature, add);
      loss += weighed(weight(r), own);
      if (r % Team::kSize == Team::rank()) by->positive[r] = by_positive;
    }
    return loss * scale;
  };
  const auto checked = [&](T loss, const auto& clear) {
    if (is_finite(loss)) return loss;
    clear();
    by->temperature = by->soft_nn_temperature = 0;
    return std::numeric_limits<T>::quiet_NaN();
  };
  if (t.use_soft_nn && s.num_cross > 0) {
    const SoftNearestNeighbour<Team, T> soft(s.cross, s.num_cross, t.soft_nn);
    const auto negative = [&](int64_t j) { return j < s.num_intra ? s.intra[j] : soft.value; };
    const auto clear = [&](T* derivative, int64_t count) {
      for_own<Team>(count, [&](int64_t j) { derivative[j] = 0; });
    };
    clear(by->intra, s.num_intra);
    T own = 0;  // this member's share of d loss / d soft.value
    const auto add = [&](int64_t j, T gradient) {
      (j < s.num_intra ? by->intra[j] : own) += gradient;
    };
    const T loss = mean(negative, s.num_intra + 1, add);
    const T by_value = Team::sum(own);
    for_own<Team>(s.num_cross,
                  [&](int64_t c) { by->cross[c] = weighed(by_value, soft.by_similarity(c)); });
    by->soft_nn_temperature = weighed(by_value, soft.by_temperature());
    return checked(loss, [&] {
      clear(by->intra, s.num_intra);
      clear(by->cross, s.num_cross);
    });
  }
  const int64_t count = s.num_intra + s.num_cross;
  const auto negative = [&](int64_t j) {
    return j < s.num_intra ? s.intra[j] : s.cross[j - s.num_intra];
  };
  const auto derivative = [&](int64_t j) -> T& {
    return j < s.num_intra ? by->intra[j] : by->cross[j - s.num_intra];
  };
  const auto clear = [&] { for_own<Team>(count, [&](int64_t j) { derivative(j) = 0; }); };
  clear();
  const auto add = [&](int64_t j, T gradient) { derivative(j) += gradient; };
  return checked(mean(negative, count, add), clear);
}

}  // namespace usucl
