// The CUDA side as the operators call it: pointers to device memory, nothing of PyTorch.
//
// All is asynchronous on the call's stream, and nothing depends on what device memory holds but the
// results: a call can be captured in a CUDA graph. The caller checks for launch errors. T, float or
// double, is the type everything is accumulated in.
#pragma once

#include "../core/ordering.h"
#include "../core/results.h"
#include "device.h"

namespace usucl::cuda {

// Device memory to work in, for the length of a call. Aligned for any type and for tensor maps.
class Memory {
 public:
  virtual ~Memory() = default;

  // Uninitialised.
  virtual void* allocate(int64_t bytes) = 0;

  // Zeros for all that is launched on the call's stream from now on. What a call asks for shares
  // one memset, up to a megabyte; beyond that, whoever asks for all at once gets one of that size.
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

// Another stream, for what does not depend on what the call's stream does meanwhile.
class Beside {
 public:
  virtual ~Beside() = default;

  // It begins after all that was launched so far on the call's stream.
  virtual cudaStream_t fork() = 0;

  // What is launched on the call's stream from now on begins after all of it.
  virtual void join() = 0;
};

// What was done, in device memory.
struct Statistics {
  unsigned long long arrivals;   // scores that reached their limit
  unsigned long long nominees;   // of those, what the chain scored
  unsigned long long unsettled;  // anchors that were searched by the chain
  unsigned long long chained;    // tiles of 32 anchors x 128 keys that the chain scored
};

// Where a call runs.
struct Call {
  Memory& memory;
  cudaStream_t stream;
  int64_t multiprocessors;                    // of the device: how many thread blocks fill it
  int64_t shared_bytes;                       // that a thread block can have
  bool tensor_cores;                          // of compute capability 8.0 or later
  bool warpgroups = false;                    // Hopper's, and compiled for it
  bool small_in_one_launch = true;            // else small problems take the launches of large ones
  int64_t smallest_dense = int64_t{1} << 20;  // pairs that are worth the launches of a dense pass
  Statistics* statistics = nullptr;           // added to, if there
  Beside* beside = nullptr;                   // if there: else all is done one after the other
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

// Gradients of anchors, positives and temperatures.
template <typename T>
void hard_negative_nce_backward(const BackwardArguments<T>& arguments, const BackwardArrays<T>& out,
                                const Call& call);

// Row j is the sum over the pairs (i, first_key + j) of upstream_i * weight * q_i, in the order of
// the anchors: the same bits every time.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted,
                  const Call& call);

}  // namespace usucl::cuda
