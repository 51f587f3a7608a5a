// The loss of one anchor and its derivatives by every selected similarity and temperature.
#pragma once

#include <cstdint>

#include "scalar.h"

namespace usucl {

template <typename T>
struct RowSimilarities {
  const T* positive;  // [num_positives], >= 1
  int64_t num_positives;
  const T* intra;  // [num_intra], the valid ones only
  int64_t num_intra;
  const T* cross;  // [num_cross], the valid ones only
  int64_t num_cross;
};

template <typename T>
struct Temperatures {
  T logits;   // > 0
  T soft_nn;  // > 0, read only with use_soft_nn
  bool use_soft_nn;
};

// d loss / d similarity of each pair, and the derivatives by the temperatures.
template <typename T>
struct RowDerivatives {
  T* positive;  // [num_positives]
  T* intra;     // [num_intra]
  T* cross;     // [num_cross]
  T temperature;
  T soft_nn_temperature;
};

// The soft nearest neighbour c = sum_j a_j s_j with a = softmax(s / t), and its derivatives.
template <typename T>
struct SoftNearestNeighbour {
  const T* similarity;  // [count]
  int64_t count;
  T temperature;
  T max;       // of the similarities
  T sum;       // of exp((s - max) / t)
  T value;     // c
  T variance;  // of s under the weights a

  USUCL_HD SoftNearestNeighbour(const T* similarities, int64_t n, T t)
      : similarity(similarities),
        count(n),
        temperature(t),
        max(similarities[0]),
        sum(0),
        value(0),
        variance(0) {
    for (int64_t j = 1; j < n; ++j) max = similarity[j] > max ? similarity[j] : max;
    for (int64_t j = 0; j < n; ++j) sum += exponential((similarity[j] - max) / temperature);
    for (int64_t j = 0; j < n; ++j) value += weight(j) * similarity[j];
    for (int64_t j = 0; j < n; ++j) {
      variance += weight(j) * (similarity[j] - value) * (similarity[j] - value);
    }
  }

  USUCL_HD T weight(int64_t j) const {
    return exponential((similarity[j] - max) / temperature) / sum;
  }

  // d c / d s_j: directly, and through the weights.
  USUCL_HD T by_similarity(int64_t j) const {
    return weight(j) * (T(1) + (similarity[j] - value) / temperature);
  }

  USUCL_HD T by_temperature() const { return -variance / (temperature * temperature); }
};

// Adds one positive's share to the derivatives and returns its loss
//     logsumexp([positive, negatives ...] / t) - positive / t.
// share is 1 / num_positives; add(j, g) receives d loss / d negative_j, times share.
template <typename T, typename Negative, typename Add>
USUCL_HD T info_nce(T positive, const Negative& negative, int64_t count, T temperature, T share,
                    T* by_positive, T* by_temperature, const Add& add) {
  T max = positive;
  for (int64_t j = 0; j < count; ++j) max = negative(j) > max ? negative(j) : max;
  T others = 0;  // sum over the negatives of exp(logit - largest logit)
  for (int64_t j = 0; j < count; ++j) others += exponential((negative(j) - max) / temperature);
  const T own = exponential((positive - max) / temperature);
  const T sum = own + others;
  T spread = 0;
  for (int64_t j = 0; j < count; ++j) {
    const T probability = exponential((negative(j) - max) / temperature) / sum;
    add(j, share * probability / temperature);
    spread += probability * (negative(j) - positive);
  }
  *by_positive = -share * (others / sum) / temperature;  // (p_0 - 1) / t without cancellation
  *by_temperature -= share * spread / (temperature * temperature);
  return positive == max ? logarithm_1p(others) : logarithm(sum) + (max - positive) / temperature;
}

// The mean over the positives of the loss with each alone. Without negatives: 0, and zeros.
template <typename T>
USUCL_HD T row_loss(const RowSimilarities<T>& s, const Temperatures<T>& t, RowDerivatives<T>* by) {
  for (int64_t r = 0; r < s.num_positives; ++r) by->positive[r] = 0;
  for (int64_t j = 0; j < s.num_intra; ++j) by->intra[j] = 0;
  for (int64_t j = 0; j < s.num_cross; ++j) by->cross[j] = 0;
  by->temperature = 0;
  by->soft_nn_temperature = 0;
  if (s.num_intra + s.num_cross == 0) return 0;

  const T share = T(1) / static_cast<T>(s.num_positives);
  T loss = 0;
  if (t.use_soft_nn && s.num_cross > 0) {
    const SoftNearestNeighbour<T> soft(s.cross, s.num_cross, t.soft_nn);
    const auto negative = [&](int64_t j) { return j < s.num_intra ? s.intra[j] : soft.value; };
    const auto add = [&](int64_t j, T gradient) {
      if (j < s.num_intra) {
        by->intra[j] += gradient;
        return;
      }
      for (int64_t c = 0; c < s.num_cross; ++c) by->cross[c] += gradient * soft.by_similarity(c);
      by->soft_nn_temperature += gradient * soft.by_temperature();
    };
    for (int64_t r = 0; r < s.num_positives; ++r) {
      loss += info_nce(s.positive[r], negative, s.num_intra + 1, t.logits, share, by->positive + r,
                       &by->temperature, add);
    }
  } else {
    const auto negative = [&](int64_t j) {
      return j < s.num_intra ? s.intra[j] : s.cross[j - s.num_intra];
    };
    const auto add = [&](int64_t j, T gradient) {
      (j < s.num_intra ? by->intra[j] : by->cross[j - s.num_intra]) += gradient;
    };
    for (int64_t r = 0; r < s.num_positives; ++r) {
      loss += info_nce(s.positive[r], negative, s.num_intra + s.num_cross, t.logits, share,
                       by->positive + r, &by->temperature, add);
    }
  }
  return loss * share;
}

}  // namespace usucl
