// The backward: derivatives of the forward, weighted by the upstream gradient.
#include "block.h"
#include "kernels.h"

namespace usucl::cuda {
namespace {

using Count = unsigned long long;  // what atomicAdd takes in 64 bits

// One thread block an anchor, one thread a dimension.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    row_kernel(BackwardArguments<T> arguments, BackwardArrays<T> out) {
  const Matrix& anchors = arguments.anchors;
  const int64_t num_positives = arguments.num_positives;
  for (int64_t i = blockIdx.x; i < anchors.rows; i += gridDim.x) {
    const T upstream = arguments.upstream(i);
    for (int64_t d = threadIdx.x; d < anchors.dim; d += kThreads) {
      if (arguments.anchor_gradient != nullptr) {
        const int64_t offset = i * anchors.dim + d;
        out.grad_anchors[offset] = upstream * arguments.anchor_gradient[offset];
      }
      const T query = element<T>(anchors, i, d);
      for (int64_t r = i * num_positives; r < (i + 1) * num_positives; ++r) {
        out.grad_positives[r * anchors.dim + d] = upstream * arguments.positive_weight[r] * query;
      }
    }
  }
}

// One thread block a temperature.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    temperature_kernel(BackwardArguments<T> arguments, T* grad_temperatures) {
  __shared__ double partial[kThreads];
  const auto share = [&](int64_t i) {
    return arguments.upstream(i) * arguments.temperature_gradient[2 * i + blockIdx.x];
  };
  const double sum = sum_in_block(share, arguments.anchors.rows, partial);
  if (threadIdx.x == 0) grad_temperatures[blockIdx.x] = static_cast<T>(sum);
}

// The selected pairs of all anchors, numbered in order of anchor, then group, then rank.
template <typename T>
struct Pairs {
  WeightedPairs<T> intra;
  WeightedPairs<T> cross;
  int64_t rows;

  USUCL_HD int64_t per_anchor() const { return intra.k + cross.k; }
  USUCL_HD int64_t count() const { return rows * per_anchor(); }
  USUCL_HD int64_t anchor(int64_t pair) const { return pair / per_anchor(); }

  USUCL_HD int64_t key(int64_t pair) const {
    const int64_t i = anchor(pair), j = pair % per_anchor();
    return j < intra.k ? intra.index[i * intra.k + j] : cross.index[i * cross.k + j - intra.k];
  }

  USUCL_HD T weight(int64_t pair) const {
    const int64_t i = anchor(pair), j = pair % per_anchor();
    return j < intra.k ? intra.weight[i * intra.k + j] : cross.weight[i * cross.k + j - intra.k];
  }
};

// The pairs grouped by key. Where a key's segment lies and how it is filled is left to the
// hardware; each is sorted before it is summed, so the gradient does not depend on that.
struct Segments {
  Count* total;  // []
  Count* begin;  // [num_keys]
  Count* end;    // [num_keys]; a segment's length at first
  Count* pair;   // [num_pairs]
};

// Calls visit(pair, key - first_key) for every pair of a wanted key, one thread a pair.
template <typename T, typename Visit>
__device__ void for_each_wanted(const Pairs<T>& pairs, const KeyGradient<T>& wanted,
                                const Visit& visit) {
  for (int64_t pair = int64_t{blockIdx.x} * kThreads + threadIdx.x; pair < pairs.count();
       pair += int64_t{gridDim.x} * kThreads) {
    const int64_t key = pairs.key(pair) - wanted.first_key;  // negative where there is none
    if (key >= 0 && key < wanted.num_keys) visit(pair, key);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    count_kernel(Pairs<T> pairs, KeyGradient<T> wanted, Segments segments) {
  for_each_wanted(pairs, wanted,
                  [&](int64_t, int64_t key) { atomicAdd(&segments.end[key], Count{1}); });
}

__global__ void __launch_bounds__(kThreads) place_segments(int64_t num_keys, Segments segments) {
  for (int64_t key = int64_t{blockIdx.x} * kThreads + threadIdx.x; key < num_keys;
       key += int64_t{gridDim.x} * kThreads) {
    const Count length = segments.end[key];
    const Count begin = length == 0 ? 0 : atomicAdd(segments.total, length);
    segments.begin[key] = begin;
    segments.end[key] = begin;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(Pairs<T> pairs, KeyGradient<T> wanted, Segments segments) {
  for_each_wanted(pairs, wanted, [&](int64_t pair, int64_t key) {
    segments.pair[atomicAdd(&segments.end[key], Count{1})] = static_cast<Count>(pair);
  });
}

// One thread block a key, one thread a dimension.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    key_kernel(Pairs<T> pairs, Upstream<T> upstream, Matrix anchors, KeyGradient<T> wanted,
               Segments segments) {
  for (int64_t key = blockIdx.x; key < wanted.num_keys; key += gridDim.x) {
    Count* segment = segments.pair + segments.begin[key];
    const auto length = static_cast<int64_t>(segments.end[key] - segments.begin[key]);
    sort_lists(
        segment, 1, 0, [&](int) { return length; }, length, [](Count a, Count b) { return a < b; });
    for (int64_t d = threadIdx.x; d < anchors.dim; d += kThreads) {
      T sum = 0;
      for (int64_t n = 0; n < length; ++n) {
        const auto pair = static_cast<int64_t>(segment[n]);
        const int64_t i = pairs.anchor(pair);
        sum += upstream(i) * pairs.weight(pair) * element<T>(anchors, i, d);
      }
      wanted.grad_keys[key * anchors.dim + d] = sum;
    }
  }
}

}  // namespace

template <typename T>
void row_gradients(const BackwardArguments<T>& arguments, const BackwardArrays<T>& out,
                   cudaStream_t stream) {
  launch(row_kernel<T>, grid_for(arguments.anchors.rows, 1), stream, arguments, out);
  launch(temperature_kernel<T>, 2, stream, arguments, out.grad_temperatures);
}

int64_t key_gradient_scratch(int64_t num_pairs, int64_t num_keys) {
  return 1 + 2 * num_keys + num_pairs;
}

template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted,
                  unsigned long long* scratch, cudaStream_t stream) {
  const Pairs<T> pairs{arguments.intra, arguments.cross, arguments.anchors.rows};
  const int64_t num_keys = wanted.num_keys;
  const Segments segments{scratch, scratch + 1, scratch + 1 + num_keys, scratch + 1 + 2 * num_keys};
  cudaMemsetAsync(scratch, 0, (1 + 2 * num_keys) * sizeof(Count), stream);
  launch(count_kernel<T>, grid_for(pairs.count(), kThreads), stream, pairs, wanted, segments);
  launch(place_segments, grid_for(num_keys, kThreads), stream, num_keys, segments);
  launch(fill_kernel<T>, grid_for(pairs.count(), kThreads), stream, pairs, wanted, segments);
  launch(key_kernel<T>, grid_for(num_keys, 1), stream, pairs, arguments.upstream, arguments.anchors,
         wanted, segments);
}

#define USUCL_INSTANTIATE(T)                                                         \
  template void row_gradients(const BackwardArguments<T>&, const BackwardArrays<T>&, \
                              cudaStream_t);                                         \
  template void key_gradient(const BackwardArguments<T>&, const KeyGradient<T>&,     \
                             unsigned long long*, cudaStream_t);
USUCL_INSTANTIATE(float)
USUCL_INSTANTIATE(double)

}  // namespace usucl::cuda
