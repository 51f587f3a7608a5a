// The CUDA side as the operators call it: plain pointers to device memory, no PyTorch.
//
// Everything is asynchronous on the call's stream, and no launch depends on values in device
// memory, so a call can be captured in a CUDA graph. The caller checks for launch errors. T, float
// or double, is the accumulation type.
#pragma once

#include "../core/ordering.h"
#include "../core/results.h"
#include "device.h"

namespace usucl::cuda {

// Device memory for the length of a call, aligned for any type and for tensor maps.
class Memory {
 public:
  virtual ~Memory() = default;

  // Uninitialised.
  virtual void* allocate(int64_t bytes) = 0;

  // Zeros for everything launched on the call's stream from now on. Requests share one memset, up
  // to a megabyte; beyond that, a request gets a memset of its own size.
  virtual void* allocate_zeros(int64_t bytes) = 0;

  template <typename Element>
  Element* array(int64_t count) {
    return static_cast<Element*>(allocate(count * static_cast<int64_t>(sizeof(Element))));
  }

  template <typename Element>
  Element* zeros(int64_t count) {
    return static_cast<Element*>(allocate_zeros(count * static_cast<int64_t>(sizeof(Element))));
  }
};

// A second stream, for work that is independent of the work meanwhile on the call's stream.
class Beside {
 public:
  virtual ~Beside() = default;

  // The second stream begins after everything launched so far on the call's stream.
  virtual cudaStream_t fork() = 0;

  // What is launched on the call's stream from now on begins after the second stream has finished.
  virtual void join() = 0;
};

// Counters of the work done, in device memory.
struct Statistics {
  unsigned long long arrivals;   // scores that reached their limit
  unsigned long long nominees;   // arrivals that the chain scored
  unsigned long long unsettled;  // anchors searched by the chain
  unsigned long long chained;    // tiles of 32 anchors x 128 keys scored by the chain
};

// Where and how a call runs.
struct Call {
  Memory& memory;
  cudaStream_t stream;
  int64_t multiprocessors;          // determines how many thread blocks fill the device
  int64_t shared_bytes;             // the most per thread block
  bool tensor_cores;                // compute capability 8.0 or later
  bool warpgroups = false;          // on Hopper, if compiled for it
  bool small_in_one_launch = true;  // false: small problems take the launches of large ones
  int64_t smallest_dense = int64_t{1} << 20;  // pairs that are worth the launches of a dense pass
  Statistics* statistics = nullptr;           // added to unless null
  Beside* beside = nullptr;                   // null: everything runs in sequence
};

template <typename T>
void select_negatives(const Problem& problem, const SelectionArrays<T>& out, const Call& call);

template <typename T>
void similarities(const ScoredPairs<T>& pairs, const Call& call);

template <typename T>
void hard_negative_nce(const Problem& problem, const LossArguments<T>& arguments,
                       const LossArrays<T>& out, const Call& call);

// total [] = sum of loss [rows] / divisor
template <typename T>
void sum_rows(const T* loss, int64_t rows, double divisor, T* total, const Call& call);

// Gradients of the anchors, the positives and the temperatures.
template <typename T>
void hard_negative_nce_backward(const BackwardArguments<T>& arguments, const BackwardArrays<T>& out,
                                const Call& call);

// Row j is the sum over the pairs (i, first_key + j) of upstream_i * weight * q_i, in anchor order,
// so that the bits are the same every time.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted,
                  const Call& call);

}  // namespace usucl::cuda
