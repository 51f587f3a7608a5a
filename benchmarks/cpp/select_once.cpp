// One cross-video selection without PyTorch on one thread, for profilers that count instructions.
//
//   select_once ANCHORS KEYS DIM K [CAPABILITY] [REPEATS]
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace {

using namespace usucl;

std::vector<float> unit_rows(int64_t rows, int64_t dim, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(rows * dim);
  for (int64_t i = 0; i < rows; ++i) {
    double squared = 0;
    for (int64_t d = 0; d < dim; ++d) {
      values[i * dim + d] = normal(random);
      squared += double{values[i * dim + d]} * double{values[i * dim + d]};
    }
    for (int64_t d = 0; d < dim; ++d) {
      values[i * dim + d] /= static_cast<float>(std::sqrt(squared));
    }
  }
  return values;
}

}  // namespace

int main(int count, char** words) {
  if (count < 5 || count > 7) {
    std::fprintf(stderr, "usage: %s ANCHORS KEYS DIM K [CAPABILITY] [REPEATS]\n", words[0]);
    return 2;
  }
  const int64_t rows = std::atoll(words[1]), keys = std::atoll(words[2]);
  const int64_t dim = std::atoll(words[3]), k = std::atoll(words[4]);
  if (count > 5) setenv("USUCL_CPU_CAPABILITY", words[5], 1);
  const std::vector<float> anchors = unit_rows(rows, dim, 1), block = unit_rows(keys, dim, 2);
  std::vector<int64_t> anchor_video(rows), key_video(keys);
  for (int64_t i = 0; i < rows; ++i) anchor_video[i] = i % 64;
  for (int64_t j = 0; j < keys; ++j) key_video[j] = j % 640;
  const std::vector<float> anchor_time(rows), key_time(keys);
  const Frames negatives{
      {block.data(), DType::kFloat32, keys, dim}, key_video.data(), key_time.data(), nullptr};
  const Problem problem{{{anchors.data(), DType::kFloat32, rows, dim},
                         anchor_video.data(),
                         anchor_time.data(),
                         nullptr},
                        &negatives,
                        1,
                        nullptr,
                        false,
                        {0, 0},
                        {k, 0},
                        std::numeric_limits<double>::infinity()};
  std::vector<int64_t> index(rows * k);
  std::vector<float> similarity(rows * k);
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < (count > 6 ? std::atoi(words[6]) : 1); ++repeat) {
    const auto start = Clock::now();
    cpu::select_negatives<float>(problem, nullptr,
                                 {nullptr, nullptr, index.data(), similarity.data()});
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::printf("%s: %.3f ms, %.4f ns per pair, %.1f GFLOP/s\n", cpu::name(cpu::capability_in_use()),
              1e3 * best, 1e9 * best / (rows * keys), 2e-9 * rows * keys * dim / best);
  return 0;
}
