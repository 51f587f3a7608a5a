// Loss and derivatives of every anchor from its selection, through core/loss.h.
#include "../core/similarity.h"
#include "block.h"
#include "kernels.h"

namespace usucl::cuda {
namespace {

// One thread an anchor.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    score_kernel(Matrix anchors, LossArguments<T> arguments, T* similarities, bool* broken) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < anchors.rows;
       i += int64_t{gridDim.x} * kThreads) {
    const auto finite = [](T x) { return x - x == T(0); };
    const auto anchor = [&](int64_t d) { return element<T>(anchors, i, d); };
    bool all_finite = true;
    for (int64_t d = 0; d < anchors.dim; ++d) all_finite &= finite(anchor(d));
    for (int64_t r = i * arguments.num_positives; r < (i + 1) * arguments.num_positives; ++r) {
      const auto positive = [&](int64_t d) { return element<T>(arguments.positives, r, d); };
      similarities[r] = similarity<T>(anchor, positive, anchors.dim);
      all_finite &= finite(similarities[r]);
    }
    broken[i] = !all_finite;
  }
}

// One thread an anchor.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(Problem problem, LossArguments<T> arguments, const T* similarities,
                  const bool* broken, LossArrays<T> out) {
  const int64_t rows = problem.anchors.embedding.rows;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows;
       i += int64_t{gridDim.x} * kThreads) {
    const T* positive = similarities + i * arguments.num_positives;
    finish_row(problem, arguments, i, positive, broken[i], out);
  }
}

template <typename T>
__device__ T key_element(const Problem& problem, int64_t index, int64_t d) {
  int64_t b = 0;
  while (index >= problem.blocks[b].embedding.rows) index -= problem.blocks[b++].embedding.rows;
  return element<T>(problem.blocks[b].embedding, index, d);
}

// d loss_i / d q_i = sum of weight * row over the positives, then the intra-video, then the
// cross-video negatives. One thread block an anchor, one thread a dimension.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    anchor_gradient_kernel(Problem problem, LossArguments<T> arguments, LossArrays<T> out) {
  const Matrix& anchors = problem.anchors.embedding;
  const int64_t num_positives = arguments.num_positives;
  for (int64_t i = blockIdx.x; i < anchors.rows; i += gridDim.x) {
    for (int64_t d = threadIdx.x; d < anchors.dim; d += kThreads) {
      T sum = 0;
      for (int64_t r = i * num_positives; r < (i + 1) * num_positives; ++r) {
        sum += out.positive_weight[r] * element<T>(arguments.positives, r, d);
      }
      const auto add_keys = [&](const int64_t* index, const T* weight, int64_t k) {
        for (int64_t j = i * k; j < (i + 1) * k && index[j] >= 0; ++j) {
          sum += weight[j] * key_element<T>(problem, index[j], d);
        }
      };
      add_keys(out.selection.intra_index, out.intra_weight, problem.intra.k);
      add_keys(out.selection.cross_index, out.cross_weight, problem.cross.k);
      out.anchor_gradient[i * anchors.dim + d] = sum;
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_kernel(const T* loss, int64_t rows, double divisor, T* total) {
  __shared__ double partial[kThreads];
  const double sum = sum_in_block([&](int64_t i) { return loss[i]; }, rows, partial);
  if (threadIdx.x == 0) *total = static_cast<T>(sum / divisor);
}

}  // namespace

template <typename T>
void score_positives(const Problem& problem, const LossArguments<T>& arguments, T* similarity,
                     bool* broken, cudaStream_t stream) {
  const Matrix& anchors = problem.anchors.embedding;
  launch(score_kernel<T>, grid_for(anchors.rows, kThreads), stream, anchors, arguments, similarity,
         broken);
}

template <typename T>
void finish_rows(const Problem& problem, const LossArguments<T>& arguments, const T* similarity,
                 const bool* broken, const LossArrays<T>& out, cudaStream_t stream) {
  const int64_t rows = problem.anchors.embedding.rows;
  launch(finish_kernel<T>, grid_for(rows, kThreads), stream, problem, arguments, similarity, broken,
         out);
  if (out.anchor_gradient == nullptr) return;
  launch(anchor_gradient_kernel<T>, grid_for(rows, 1), stream, problem, arguments, out);
}

template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total, cudaStream_t stream) {
  launch(sum_kernel<T>, 1, stream, loss, rows, divisor, total);
}

#define USUCL_INSTANTIATE(T)                                                                       \
  template void score_positives(const Problem&, const LossArguments<T>&, T*, bool*, cudaStream_t); \
  template void finish_rows(const Problem&, const LossArguments<T>&, const T*, const bool*,        \
                            const LossArrays<T>&, cudaStream_t);                                   \
  template void sum_rows(const T*, int64_t, double, T*, cudaStream_t);
USUCL_INSTANTIATE(float)
USUCL_INSTANTIATE(double)

}  // namespace usucl::cuda
