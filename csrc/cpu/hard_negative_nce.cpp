// The CPU kernels of the operators in ops.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "../operators.h"
#include "gradient.h"
#include "panels.h"
#include "parallel.h"
#include "select.h"

namespace usucl::cpu {
namespace {

// What the forward of one call works with.
template <typename T>
struct Forward {
  const Problem& problem;
  const LossArguments<T>& arguments;
  const LossArrays<T>& out;

  void run() {
    const int64_t rows = problem.anchors.embedding.rows;
    const int64_t num_positives = arguments.num_positives;
    // Not std::vector<bool>: threads write neighbouring rows.
    const auto broken = std::make_unique<bool[]>(rows);
    const auto positive = std::make_unique<T[]>(rows * num_positives);
    const int64_t dim = problem.anchors.embedding.dim;
    parallel_for(rows, grain_for(dim * num_positives), [&](int64_t begin, int64_t end) {
      std::vector<T> query(dim);
      for (int64_t i = begin; i < end; ++i) {
        broken[i] = !score_positives(i, query.data(), positive.get() + i * num_positives);
      }
    });
    select_negatives(problem, broken.get(), out.selection);
    const int64_t pairs = num_positives + problem.intra.k + problem.cross.k;
    parallel_for(rows, grain_for(dim * pairs), [&](int64_t begin, int64_t end) {
      std::vector<T> key(dim);
      for (int64_t i = begin; i < end; ++i) {
        finish_row(problem, arguments, i, positive.get() + i * num_positives, broken[i], out);
        if (out.anchor_gradient != nullptr) sum_gradient(i, key.data());
      }
    });
  }

 private:
  // Returns whether the anchor and all its positives' similarities are finite.
  bool score_positives(int64_t i, T* query, T* similarity) const {
    const Matrix& anchors = problem.anchors.embedding;
    const int64_t num_positives = arguments.num_positives;
    pack_row(anchors, i, query, 1, 0);
    score_rows(query, arguments.positives, i * num_positives, num_positives, similarity);
    const auto finite = [](T x) { return x - x == T(0); };
    return std::all_of(query, query + anchors.dim, finite) &&
           std::all_of(similarity, similarity + num_positives, finite);
  }

  void sum_gradient(int64_t i, T* key) const {
    const int64_t dim = problem.anchors.embedding.dim;
    T* gradient = out.anchor_gradient + i * dim;
    std::fill_n(gradient, dim, T(0));
    for (int64_t r = i * arguments.num_positives; r < (i + 1) * arguments.num_positives; ++r) {
      pack_row(arguments.positives, r, key, 1, 0);
      add_scaled(out.positive_weight[r], key, gradient, dim);
    }
    add_keys(i, out.selection.intra_index, out.intra_weight, problem.intra.k, key, gradient);
    add_keys(i, out.selection.cross_index, out.cross_weight, problem.cross.k, key, gradient);
  }

  void add_keys(int64_t i, const int64_t* index, const T* weight, int64_t k, T* key,
                T* gradient) const {
    for (int64_t j = i * k; j < (i + 1) * k && index[j] >= 0; ++j) {
      int64_t row = index[j], b = 0;
      while (row >= problem.blocks[b].embedding.rows) row -= problem.blocks[b++].embedding.rows;
      pack_row(problem.blocks[b].embedding, row, key, 1, 0);
      add_scaled(weight[j], key, gradient, problem.anchors.embedding.dim);
    }
  }
};

struct Cpu {
  explicit Cpu(const Tensor&) {}

  template <typename T>
  void select_negatives(const Problem& problem, const SelectionArrays<T>& selection) {
    cpu::select_negatives(problem, nullptr, selection);
  }

  template <typename T>
  void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                         const LossArrays<T>& out) {
    Forward<T>{problem, arguments, out}.run();
  }

  template <typename T>
  void sum_rows(const T* loss, int64_t rows, double divisor, T* result) {
    double total = 0;  // in the order of the anchors, whatever the number of threads
    for (int64_t i = 0; i < rows; ++i) total += loss[i];
    *result = static_cast<T>(total / divisor);
  }
};

}  // namespace
}  // namespace usucl::cpu

STABLE_TORCH_LIBRARY_IMPL(usucl, CPU, m) {
  m.impl("select_negatives", TORCH_BOX(&usucl::select_negatives_op<usucl::cpu::Cpu>));
  m.impl("hard_negative_nce", TORCH_BOX(&usucl::hard_negative_nce_op<usucl::cpu::Cpu>));
}
