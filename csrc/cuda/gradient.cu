// The backward pass: derivatives from the forward pass, weighted by the upstream gradient.
#include "block.h"
#include "groups.h"

namespace usucl::cuda {
namespace {

// One thread block per anchor, one thread per dimension.
template <typename T>
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
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
      if (out.grad_positives == nullptr) continue;
      const T query = element<T>(anchors, i, d);
      for (int64_t r = i * num_positives; r < (i + 1) * num_positives; ++r) {
        out.grad_positives[r * anchors.dim + d] = upstream * arguments.positive_weight[r] * query;
      }
    }
  }
}

struct TemperatureShared {
  double partial[kThreads];
};

// One thread block per temperature.
template <typename T>
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    temperature_kernel(BackwardArguments<T> arguments, T* grad_temperatures) {
  const auto share = [&](int64_t i) {
    return arguments.upstream(i) * arguments.temperature_gradient[2 * i + blockIdx.x];
  };
  const double sum =
      sum_in_block(share, arguments.anchors.rows, shared_memory<TemperatureShared>().partial);
  if (threadIdx.x == 0) grad_temperatures[blockIdx.x] = static_cast<T>(sum);
}

// The selected pairs of all anchors, numbered by anchor, then group, then rank.
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

// A pair's key, counted from the first key whose gradient is wanted.
template <typename T>
struct KeyOfPair {
  Pairs<T> pairs;
  int64_t first_key;
  int64_t num_keys;

  __device__ int64_t operator()(int64_t pair) const {
    const int64_t key = pairs.key(pair) - first_key;  // negative if missing
    return key < num_keys ? key : -1;
  }
};

// One thread block per key, one thread per dimension.
template <typename T>
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    key_kernel(Pairs<T> pairs, Upstream<T> upstream, Matrix anchors, KeyGradient<T> wanted,
               Groups groups) {
  for (int64_t key = blockIdx.x; key < wanted.num_keys; key += gridDim.x) {
    Count* of_key = groups.item + groups.begin[key];
    const auto count = static_cast<int64_t>(groups.end[key] - groups.begin[key]);
    sort<BlockTeam>(of_key, count, [](Count a, Count b) { return a < b; });
    for (int64_t d = threadIdx.x; d < anchors.dim; d += kThreads) {
      T sum = 0;
      for (int64_t n = 0; n < count; ++n) {
        const auto pair = static_cast<int64_t>(of_key[n]);
        const int64_t i = pairs.anchor(pair);
        sum += upstream(i) * pairs.weight(pair) * element<T>(anchors, i, d);
      }
      wanted.grad_keys[key * anchors.dim + d] = sum;
    }
  }
}

}  // namespace

template <typename T>
void hard_negative_nce_backward(const BackwardArguments<T>& arguments, const BackwardArrays<T>& out,
                                const Call& call) {
  if (arguments.anchor_gradient != nullptr || out.grad_positives != nullptr) {
    launch<row_kernel<T>>(grid_for(arguments.anchors.rows, 1, call), kThreads, 0, call.stream,
                          arguments, out);
  }
  if (out.grad_temperatures != nullptr) {
    launch<temperature_kernel<T>>(2, kThreads, sizeof(TemperatureShared), call.stream, arguments,
                                  out.grad_temperatures);
  }
}

template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted,
                  const Call& call) {
  const Pairs<T> pairs{arguments.intra, arguments.cross, arguments.anchors.rows};
  const KeyOfPair<T> key_of{pairs, wanted.first_key, wanted.num_keys};
  const Groups groups = group(key_of, pairs.count(), wanted.num_keys, call);
  launch<key_kernel<T>>(grid_for(wanted.num_keys, 1, call), kThreads, 0, call.stream, pairs,
                        arguments.upstream, arguments.anchors, wanted, groups);
}

#define USUCL_INSTANTIATE(T)                                                                      \
  template void hard_negative_nce_backward(const BackwardArguments<T>&, const BackwardArrays<T>&, \
                                           const Call&);                                          \
  template void key_gradient(const BackwardArguments<T>&, const KeyGradient<T>&, const Call&);
USUCL_INSTANTIATE(float)
USUCL_INSTANTIATE(double)

}  // namespace usucl::cuda
