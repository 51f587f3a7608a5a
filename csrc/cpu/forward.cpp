#include "kernels.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "../core/row.h"
#include "parallel.h"
#include "tile/capability.h"
#include "tile/pair_batch.h"
#include "tile/rows.h"

namespace usucl::cpu {
namespace {

// The state of one forward call.
template <typename T>
struct Forward {
  const Problem& problem;
  const LossArguments<T>& arguments;
  const LossArrays<T>& out;

  void run() {
    const int64_t rows = problem.anchors.embedding.rows;
    const int64_t num_positives = arguments.num_positives;
    // Not std::vector<bool>: threads write neighbouring rows concurrently.
    const auto broken = std::make_unique<bool[]>(rows);
    const auto positive = std::make_unique<T[]>(rows * num_positives);
    const auto limits = std::make_unique<T[]>(arguments.margin == nullptr ? 0 : rows);
    const int64_t dim = problem.anchors.embedding.dim;
    parallel_for(rows, grain_for(4 * dim * num_positives), [&](int64_t begin, int64_t end) {
      score_positives(begin, end, positive.get());
      for (int64_t i = begin; i < end; ++i) {
        const T* own = positive.get() + i * num_positives;
        broken[i] = !finite(i, own) || !arguments.valid(i);
        if (arguments.margin != nullptr) {
          limits[i] = arguments.limit(i, *std::max_element(own, own + num_positives));
        }
      }
    });
    Problem limited = problem;
    if (arguments.margin != nullptr) limited.limits = limits.get();
    select_negatives(limited, broken.get(), out.selection);
    const int64_t pairs = num_positives + problem.intra.k + problem.cross.k;
    parallel_for(rows, grain_for(dim * pairs), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        finish_row<Alone>(problem, arguments, i, positive.get() + i * num_positives, broken[i],
                          out);
        if (out.anchor_gradient != nullptr) sum_gradient(i);
      }
    });
  }

 private:
  void score_positives(int64_t begin, int64_t end, T* similarity) const {
    PairBatch<T, int64_t> batch(tile_kernels<T>(capability_in_use()), problem.anchors.embedding);
    const auto write = [&](int64_t pair, T value) { similarity[pair] = value; };
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t r = i * arguments.num_positives; r < (i + 1) * arguments.num_positives; ++r) {
        batch.add(i, arguments.positives, r, r, write);
      }
    }
    batch.flush(write);
  }

  // Whether the anchor and its similarities with all its positives are finite.
  bool finite(int64_t i, const T* similarity) const {
    const int64_t dim = problem.anchors.embedding.dim;
    return std::all_of(similarity, similarity + arguments.num_positives, is_finite<T>) &&
           with_row(problem.anchors.embedding, i, [&](const auto* elements) {
             return std::all_of(elements, elements + dim,
                                [](auto element) { return is_finite(upcast(element)); });
           });
  }

  void sum_gradient(int64_t i) const {
    T* gradient = out.anchor_gradient + i * problem.anchors.embedding.dim;
    std::fill_n(gradient, problem.anchors.embedding.dim, T(0));
    for (int64_t r = i * arguments.num_positives; r < (i + 1) * arguments.num_positives; ++r) {
      add_scaled_row(out.positive_weight[r], arguments.positives, r, gradient);
    }
    add_keys(out.selection.intra_index, out.intra_weight, i, problem.intra.k, gradient);
    add_keys(out.selection.cross_index, out.cross_weight, i, problem.cross.k, gradient);
  }

  // Selected keys lie anywhere in memory, where the hardware prefetcher fails: while one key is
  // added, the one of the same rank of the next anchor is prefetched.
  void add_keys(const int64_t* index, const T* weight, int64_t i, int64_t k, T* gradient) const {
    const bool last = i + 1 == problem.anchors.embedding.rows;
    for (int64_t j = i * k; j < (i + 1) * k && index[j] >= 0; ++j) {
      if (!last && index[j + k] >= 0) {
        const KeyPlace later = place_of(problem.blocks, index[j + k]);
        prefetch_row(later.block->embedding, later.row);
      }
      const KeyPlace key = place_of(problem.blocks, index[j]);
      add_scaled_row(weight[j], key.block->embedding, key.row, gradient);
    }
  }
};

}  // namespace

template <typename T>
void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                       const LossArrays<T>& out) {
  Forward<T>{problem, arguments, out}.run();
}

template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total) {
  double sum = 0;  // in anchor order, whatever the number of threads
  for (int64_t i = 0; i < rows; ++i) sum += loss[i];
  *total = static_cast<T>(sum / divisor);
}

template void hard_negative_nce(const Problem&, const LossArguments<float>&,
                                const LossArrays<float>&);
template void hard_negative_nce(const Problem&, const LossArguments<double>&,
                                const LossArrays<double>&);
template void sum_rows(const float*, int64_t, double, float*);
template void sum_rows(const double*, int64_t, double, double*);

}  // namespace usucl::cpu
