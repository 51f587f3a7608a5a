// The Python module usucl_ext._C: what was built, and the rules of csrc/core for tests. No tensors.
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "../core/ordering.h"
#include "../core/relation.h"
#include "../core/similarity.h"
#include "../cpu/backend.h"
#include "../cpu/tile/capability.h"
#include "direct.h"
#include "pybind.h"

#ifndef USUCL_BUILT_WITH_CUDA
#error "setup.py defines the facts of the build"
#endif

namespace {

namespace py = pybind11;

py::dict build_info() {
  py::dict info;
  info["torch"] = USUCL_BUILT_WITH_TORCH;
  info["compiler"] = USUCL_COMPILER;
  info["cuda_built"] = USUCL_BUILT_WITH_CUDA[0] != '\0';
  info["cuda"] = USUCL_BUILT_WITH_CUDA;
  info["archs"] = USUCL_CUDA_ARCHS;
  info["cuda_absent_reason"] = USUCL_CUDA_ABSENT_REASON;
  info["cpu_capability"] = usucl::cpu::name(usucl::cpu::capability_in_use());
  return info;
}

std::vector<std::string> cpu_capabilities() {
  std::vector<std::string> names;
  for (const auto capability : usucl::cpu::kBestFirst) {
    if (usucl::cpu::runs_here(capability)) names.push_back(usucl::cpu::name(capability));
  }
  return names;
}

// Billions of float32 operations per second of one thread that only does fused multiply-adds.
double fma_peak(double seconds) {
  const py::gil_scoped_release released;
  const auto& kernels = usucl::cpu::tile_kernels<float>(usucl::cpu::capability_in_use());
  constexpr int64_t kRounds = 1 << 16;
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  int64_t batches = 0;
  double taken = 0;
  [[maybe_unused]] volatile float sink = 0;
  do {
    sink = kernels.multiply_adds(kRounds);
    ++batches;
    taken = elapsed();
  } while (taken < seconds);
  return 2e-9 * static_cast<double>(kernels.fused_per_round * kRounds * batches) / taken;
}

std::string relation(std::tuple<int64_t, float, int64_t> anchor,
                     std::tuple<int64_t, float, int64_t> key, std::pair<float, float> window) {
  const auto tag = [](const auto& t) {
    return usucl::FrameTag{std::get<0>(t), std::get<1>(t), std::get<2>(t)};
  };
  switch (usucl::relation(tag(anchor), tag(key), {window.first, window.second})) {
    case usucl::Relation::kIntraVideo:
      return "intra";
    case usucl::Relation::kCrossVideo:
      return "cross";
    default:
      return "ignored";
  }
}

float similarity(const std::vector<float>& anchor, const std::vector<float>& key) {
  if (anchor.size() != key.size()) throw py::value_error("key must be as long as anchor");
  return usucl::similarity<float>([&](int64_t d) { return anchor[d]; },
                                  [&](int64_t d) { return key[d]; },
                                  static_cast<int64_t>(anchor.size()));
}

bool ranks_before(std::pair<double, int64_t> a, std::pair<double, int64_t> b) {
  return usucl::ranks_before<double>({a.first, a.second}, {b.first, b.second});
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "What was built, and the rules of the loss on the host, for tests.";
  m.def("build_info", &build_info, "Facts about the build, as strings and booleans.");
  m.def("cpu_capabilities", &cpu_capabilities, "The instruction sets that this machine supports.");
  m.def("fma_peak", &fma_peak, py::arg("seconds"),
        "GFLOP/s of one thread that only does float32 fused multiply-adds for so many seconds.");
  usucl::bind_direct_calls<usucl::cpu::Cpu>(m);
  m.def("relation", &relation, py::arg("anchor"), py::arg("key"), py::arg("window"),
        "'intra', 'cross' or 'ignored' for tags (video, time, patient) and a window (lo, hi).");
  m.def("similarity", &similarity, py::arg("anchor"), py::arg("key"),
        "The chain of fused multiply-adds in float32.");
  m.def("ranks_before", &ranks_before, py::arg("a"), py::arg("b"),
        "Whether candidate a = (similarity, index) ranks before b.");
}
