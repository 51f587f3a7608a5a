// The host entry points of the emulated kernels for ctypes; structures.py mirrors the structs of
// csrc/core/problem.h and csrc/core/results.h.
#include <string>

#include "cuda/tensor_cores/rounding.h"
#include "emulation.h"
#include "host_memory.h"

namespace {

using namespace usucl;

std::string text;
int64_t multiprocessors = 2;
bool small_in_one_launch = true;
bool warpgroups = false;
int64_t smallest_dense = int64_t{1} << 20;
cuda::Statistics statistics;

// Runs call(Call); returns the error, races included, or null.
template <typename Run>
const char* run(const Run& run_on) {
  emulation::forget_races();
  text.clear();
  try {
    emulation::HostMemory memory;
    run_on(cuda::Call{memory, nullptr, multiprocessors, emulation::most_shared_bytes, true,
                      warpgroups, small_in_one_launch, smallest_dense, &statistics});
  } catch (const std::exception& error) {
    text = error.what();
  }
  if (emulation::races().count > 0) text += "\nraces:\n" + emulation::races().first;
  return text.empty() ? nullptr : text.c_str();
}

}  // namespace

#define USUCL_ENTRY extern "C" __attribute__((visibility("default")))

USUCL_ENTRY void configure(const emulation::Settings* settings, int64_t num_multiprocessors,
                           bool one_launch, int64_t smallest_dense_pass, bool by_warpgroups,
                           int64_t shared_bytes) {
  emulation::settings = *settings;
  multiprocessors = num_multiprocessors;
  small_in_one_launch = one_launch;
  smallest_dense = smallest_dense_pass;
  warpgroups = by_warpgroups;
  emulation::most_shared_bytes = shared_bytes;
}

// The counters since the last call.
USUCL_ENTRY void take_statistics(cuda::Statistics* out) {
  *out = statistics;
  statistics = {};
}

USUCL_ENTRY double margin(int32_t anchors, int32_t elements, int64_t dim, double anchor_norm,
                          double key_norm) {
  const NominationMargin margin(
      cuda::tensor_core_errors(static_cast<DType>(anchors), static_cast<DType>(elements), dim));
  return margin.relative * anchor_norm * key_norm + margin.absolute * (anchor_norm + key_norm + 1);
}

// The kernels that have run since the last call, one per line.
USUCL_ENTRY const char* take_kernels() {
  static std::string names;
  names.clear();
  for (const std::string& name : emulation::kernels_run()) names += name + "\n";
  emulation::forget_kernels();
  return names.c_str();
}

#define USUCL_ENTRIES(T, suffix)                                                                   \
  USUCL_ENTRY const char* select_##suffix(const Problem* problem, const SelectionArrays<T>* out) { \
    return run([&](const cuda::Call& c) { cuda::select_negatives<T>(*problem, *out, c); });        \
  }                                                                                                \
  USUCL_ENTRY const char* pairs_##suffix(const ScoredPairs<T>* pairs) {                            \
    return run([&](const cuda::Call& c) { cuda::similarities<T>(*pairs, c); });                    \
  }                                                                                                \
  USUCL_ENTRY const char* forward_##suffix(                                                        \
      const Problem* problem, const LossArguments<T>* arguments, const LossArrays<T>* out) {       \
    return run(                                                                                    \
        [&](const cuda::Call& c) { cuda::hard_negative_nce<T>(*problem, *arguments, *out, c); });  \
  }                                                                                                \
  USUCL_ENTRY const char* sum_##suffix(const T* loss, int64_t rows, double divisor, T* total) {    \
    return run([&](const cuda::Call& c) { cuda::sum_rows<T>(loss, rows, divisor, total, c); });    \
  }                                                                                                \
  USUCL_ENTRY const char* backward_##suffix(const BackwardArguments<T>* arguments,                 \
                                            const BackwardArrays<T>* out) {                        \
    return run(                                                                                    \
        [&](const cuda::Call& c) { cuda::hard_negative_nce_backward<T>(*arguments, *out, c); });   \
  }                                                                                                \
  USUCL_ENTRY const char* keys_##suffix(const BackwardArguments<T>* arguments,                     \
                                        const KeyGradient<T>* wanted) {                            \
    return run([&](const cuda::Call& c) { cuda::key_gradient<T>(*arguments, *wanted, c); });       \
  }
USUCL_ENTRIES(float, float32)
USUCL_ENTRIES(double, float64)
