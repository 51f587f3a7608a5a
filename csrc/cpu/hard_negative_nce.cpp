// The CPU kernels of the operators in ops.cpp.
#include "../arguments.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <tuple>

#include "../core/loss.h"
#include "../core/similarity.h"
#include "gradient.h"
#include "panels.h"
#include "parallel.h"
#include "select.h"

namespace usucl::cpu {
namespace {

constexpr int64_t kRowsPerTask = 16;

struct SelectionTensors {
  Tensor intra_index, intra_similarity, cross_index, cross_similarity;
};

template <typename T>
SelectionTensors new_selection(const Problem& problem, const Tensor& anchors) {
  const int64_t rows = problem.anchors.embedding.rows;
  const auto type = scalar_type_of<T>();
  return {new_empty(anchors, {rows, problem.intra.k}, ScalarType::Long),
          new_empty(anchors, {rows, problem.intra.k}, type),
          new_empty(anchors, {rows, problem.cross.k}, ScalarType::Long),
          new_empty(anchors, {rows, problem.cross.k}, type)};
}

template <typename T>
SelectionArrays<T> arrays_of(const SelectionTensors& s) {
  return {data_of<int64_t>(s.intra_index), data_of<T>(s.intra_similarity),
          data_of<int64_t>(s.cross_index), data_of<T>(s.cross_similarity)};
}

// What the forward of one call works with: inputs upcast, outputs as pointers.
template <typename T>
struct Forward {
  const Problem& problem;
  Matrix positives;  // [N * R, D]
  int64_t num_positives;
  Temperatures<T> temperatures;
  SelectionArrays<T> selection;
  T* loss;                  // [N]
  T* anchor_gradient;       // [N, D] or null
  T* positive_weight;       // [N, R]
  T* intra_weight;          // [N, intra_k]
  T* cross_weight;          // [N, cross_k]
  T* temperature_gradient;  // [N, 2]

  void run() {
    const int64_t rows = problem.anchors.embedding.rows;
    // Not std::vector<bool>: threads write neighbouring rows.
    const auto broken = std::make_unique<bool[]>(rows);
    const auto positive = std::make_unique<T[]>(rows * num_positives);
    parallel_for(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      std::vector<T> query(problem.anchors.embedding.dim);
      for (int64_t i = begin; i < end; ++i) {
        broken[i] = !score_positives(i, query.data(), positive.get() + i * num_positives);
      }
    });
    select_negatives(problem, broken.get(), selection);
    parallel_for(rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      std::vector<T> key(problem.anchors.embedding.dim);
      for (int64_t i = begin; i < end; ++i) {
        finish_row(i, positive.get() + i * num_positives, broken[i], key.data());
      }
    });
  }

 private:
  // Returns whether the anchor and all its positives' similarities are finite.
  bool score_positives(int64_t i, T* query, T* similarity) const {
    const Matrix& anchors = problem.anchors.embedding;
    pack_row(anchors, i, query, 1, 0);
    score_rows(query, positives, i * num_positives, num_positives, similarity);
    const auto finite = [](T x) { return x - x == T(0); };
    return std::all_of(query, query + anchors.dim, finite) &&
           std::all_of(similarity, similarity + num_positives, finite);
  }

  static int64_t taken(const int64_t* index, int64_t k) {
    return std::find(index, index + k, int64_t{-1}) - index;
  }

  void finish_row(int64_t i, const T* positive, bool broken, T* key) const {
    const int64_t dim = problem.anchors.embedding.dim;
    const int64_t intra_k = problem.intra.k, cross_k = problem.cross.k;
    const int64_t* intra_index = selection.intra_index + i * intra_k;
    const int64_t* cross_index = selection.cross_index + i * cross_k;
    const RowSimilarities<T> similarities{positive,
                                          num_positives,
                                          selection.intra_similarity + i * intra_k,
                                          taken(intra_index, intra_k),
                                          selection.cross_similarity + i * cross_k,
                                          taken(cross_index, cross_k)};
    std::fill_n(intra_weight + i * intra_k, intra_k, T(0));
    std::fill_n(cross_weight + i * cross_k, cross_k, T(0));
    RowDerivatives<T> by{positive_weight + i * num_positives, intra_weight + i * intra_k,
                         cross_weight + i * cross_k, 0, 0};
    loss[i] = row_loss(similarities, temperatures, &by);
    temperature_gradient[2 * i] = by.temperature;
    temperature_gradient[2 * i + 1] = by.soft_nn_temperature;
    if (broken) {
      loss[i] = std::numeric_limits<T>::quiet_NaN();
      std::fill_n(by.positive, num_positives, loss[i]);
    }
    if (anchor_gradient == nullptr) return;
    T* gradient = anchor_gradient + i * dim;
    if (broken || similarities.num_intra + similarities.num_cross == 0) {
      std::fill_n(gradient, dim, broken ? loss[i] : T(0));
      return;
    }
    std::fill_n(gradient, dim, T(0));
    for (int64_t r = 0; r < num_positives; ++r) {
      pack_row(positives, i * num_positives + r, key, 1, 0);
      add_scaled(by.positive[r], key, gradient, dim);
    }
    add_keys(intra_index, by.intra, similarities.num_intra, key, gradient);
    add_keys(cross_index, by.cross, similarities.num_cross, key, gradient);
  }

  void add_keys(const int64_t* index, const T* weight, int64_t count, T* key, T* gradient) const {
    for (int64_t j = 0; j < count; ++j) {
      int64_t row = index[j], b = 0;
      while (row >= problem.blocks[b].embedding.rows) row -= problem.blocks[b++].embedding.rows;
      pack_row(problem.blocks[b].embedding, row, key, 1, 0);
      add_scaled(weight[j], key, gradient, problem.anchors.embedding.dim);
    }
  }
};

template <typename T>
T scalar_of(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.numel() == 1 && tensor.scalar_type() == scalar_type_of<T>(), name,
                  " must be one value of the accumulation dtype");
  return *static_cast<const T*>(tensor.const_data_ptr());
}

template <typename T>
Tensor reduce(const Tensor& rows, Reduction reduction) {
  if (reduction == Reduction::kNone) return rows;
  const T* loss = data_of<T>(rows);
  const int64_t count = rows.numel();
  double total = 0;  // in the order of the anchors, whatever the number of threads
  for (int64_t i = 0; i < count; ++i) total += loss[i];
  if (reduction == Reduction::kMean) total /= static_cast<double>(std::max<int64_t>(count, 1));
  Tensor result = new_empty(rows, {}, scalar_type_of<T>());
  *data_of<T>(result) = static_cast<T>(total);
  return result;
}

using ForwardTensors =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <typename T>
ForwardTensors forward(const Problem& problem, const Tensor& anchors, const Tensor& positives,
                       const Tensor& temperature, const std::optional<Tensor>& soft_nn_temperature,
                       Reduction reduction, bool anchors_need_gradient) {
  const auto type = scalar_type_of<T>();
  const int64_t rows = problem.anchors.embedding.rows, dim = problem.anchors.embedding.dim;
  const int64_t num_positives = positives.size(1);
  const SelectionTensors selection = new_selection<T>(problem, anchors);
  const Tensor loss = new_empty(anchors, {rows}, type);
  const Tensor anchor_gradient = new_empty(anchors, {anchors_need_gradient ? rows : 0, dim}, type);
  const Tensor positive_weight = new_empty(anchors, {rows, num_positives}, type);
  const Tensor intra_weight = new_empty(anchors, {rows, problem.intra.k}, type);
  const Tensor cross_weight = new_empty(anchors, {rows, problem.cross.k}, type);
  const Tensor temperature_gradient = new_empty(anchors, {rows, 2}, type);
  Forward<T>{
      problem,
      matrix_of(positives, dim, "positives"),
      num_positives,
      {scalar_of<T>(temperature, "temperature"),
       soft_nn_temperature ? scalar_of<T>(*soft_nn_temperature, "soft_nn_temperature") : T(1),
       soft_nn_temperature.has_value()},
      arrays_of<T>(selection),
      data_of<T>(loss),
      anchors_need_gradient ? data_of<T>(anchor_gradient) : nullptr,
      data_of<T>(positive_weight),
      data_of<T>(intra_weight),
      data_of<T>(cross_weight),
      data_of<T>(temperature_gradient),
  }
      .run();
  return {reduce<T>(loss, reduction),
          selection.intra_index,
          selection.intra_similarity,
          selection.cross_index,
          selection.cross_similarity,
          anchor_gradient,
          positive_weight,
          intra_weight,
          cross_weight,
          temperature_gradient};
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor> select_negatives_op(
    const Tensor& anchors, const Tensor& video, const Tensor& time,
    const std::optional<Tensor>& patient, const std::vector<Tensor>& keys,
    const std::vector<Tensor>& key_video, const std::vector<Tensor>& key_time,
    const std::vector<Tensor>& key_patient, const std::optional<Tensor>& window, int64_t intra_k,
    int64_t cross_k, int64_t intra_skip, int64_t cross_skip, std::optional<double> max_similarity) {
  const SelectionArguments arguments(anchors, video, time, patient, keys, key_video, key_time,
                                     key_patient, window, intra_k, cross_k, intra_skip, cross_skip,
                                     max_similarity);
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const SelectionTensors selection = new_selection<T>(arguments.problem(), anchors);
    select_negatives(arguments.problem(), nullptr, arrays_of<T>(selection));
    return std::make_tuple(selection.intra_index, selection.intra_similarity, selection.cross_index,
                           selection.cross_similarity);
  };
  return arguments.double_precision() ? run(double{}) : run(float{});
}

ForwardTensors hard_negative_nce_op(
    const Tensor& anchors, const Tensor& video, const Tensor& time,
    const std::optional<Tensor>& patient, const std::vector<Tensor>& keys,
    const std::vector<Tensor>& key_video, const std::vector<Tensor>& key_time,
    const std::vector<Tensor>& key_patient, const std::optional<Tensor>& window, int64_t intra_k,
    int64_t cross_k, int64_t intra_skip, int64_t cross_skip, std::optional<double> max_similarity,
    const Tensor& positives, const Tensor& temperature,
    const std::optional<Tensor>& soft_nn_temperature, int64_t reduction,
    bool anchors_need_gradient) {
  const SelectionArguments arguments(anchors, video, time, patient, keys, key_video, key_time,
                                     key_patient, window, intra_k, cross_k, intra_skip, cross_skip,
                                     max_similarity);
  STD_TORCH_CHECK(
      positives.dim() == 3 && positives.size(0) == anchors.size(0) && positives.size(1) >= 1,
      "positives must have shape [N, R, D] with R >= 1");
  const bool in_double =
      arguments.double_precision() || positives.scalar_type() == ScalarType::Double;
  const auto run = in_double ? &forward<double> : &forward<float>;
  return run(arguments.problem(), anchors, positives, temperature, soft_nn_temperature,
             static_cast<Reduction>(reduction), anchors_need_gradient);
}

}  // namespace usucl::cpu

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::cpu::select_negatives_op));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::cpu::hard_negative_nce_op));
}
