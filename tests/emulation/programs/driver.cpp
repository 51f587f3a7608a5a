// Runs the emulated kernels under AddressSanitizer and UndefinedBehaviorSanitizer, with every array
// of its exact size, and compares the results with the CPU kernels'.
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../../cpp/check.h"
#include "../../cpp/parallel_for_tests.h"
#include "cpu/kernels.h"
#include "emulation.h"
#include "host_memory.h"

namespace {

using namespace usucl;

// The launches of a forward pass.
enum class Way { kOneLaunch, kByChain, kDense, kWarpgroups };

struct Sizes {
  int64_t anchors, dim, positives;
  std::vector<int64_t> blocks;
  Ranks intra, cross;
  int videos;
  bool patients, soft_nn;
  Way way;
  bool limited = false;  // by a margin; the positives have weights
};

template <typename T>
constexpr DType kDType = sizeof(T) == sizeof(float) ? DType::kFloat32 : DType::kFloat64;

template <typename T>
struct Columns {
  std::vector<T> embedding;
  std::vector<float> time;
  std::vector<int64_t> video, patient;
  int64_t dim;

  Columns(int64_t rows, const Sizes& sizes, std::mt19937& random) : dim(sizes.dim) {
    std::normal_distribution<T> normal(T(0), T(1) / std::sqrt(static_cast<T>(dim)));
    std::uniform_int_distribution<int> draw(-1, sizes.videos);
    for (int64_t i = 0; i < rows * dim; ++i) embedding.push_back(normal(random));
    for (int64_t i = 0; i < rows; ++i) {
      time.push_back(static_cast<float>(draw(random)));
      video.push_back(draw(random));
      if (sizes.patients) patient.push_back(draw(random) / 2);
    }
    embedding.shrink_to_fit();
    time.shrink_to_fit();
    video.shrink_to_fit();
    patient.shrink_to_fit();
  }

  Frames frames() const {
    return {{embedding.data(), kDType<T>, static_cast<int64_t>(video.size()), dim},
            video.data(),
            time.data(),
            patient.empty() ? nullptr : patient.data()};
  }
};

template <typename T>
struct Results {
  std::vector<int64_t> intra_index, cross_index;
  std::vector<T> intra_similarity, cross_similarity, loss, gradient, positive, intra, cross,
      temperature, grad_anchors, grad_positives, grad_temperatures;
  std::vector<std::vector<T>> grad_keys;

  explicit Results(const Sizes& s)
      : intra_index(s.anchors * s.intra.k),
        cross_index(s.anchors * s.cross.k),
        intra_similarity(s.anchors * s.intra.k),
        cross_similarity(s.anchors * s.cross.k),
        loss(s.anchors),
        gradient(s.anchors * s.dim),
        positive(s.anchors * s.positives),
        intra(s.anchors * s.intra.k),
        cross(s.anchors * s.cross.k),
        temperature(s.anchors * 2),
        grad_anchors(s.anchors * s.dim),
        grad_positives(s.anchors * s.positives * s.dim),
        grad_temperatures(2) {
    for (const int64_t count : s.blocks) grad_keys.emplace_back(count * s.dim);
  }

  LossArrays<T> arrays() {
    return {
        {intra_index.data(), intra_similarity.data(), cross_index.data(), cross_similarity.data()},
        loss.data(),
        gradient.data(),
        positive.data(),
        intra.data(),
        cross.data(),
        temperature.data()};
  }

  BackwardArguments<T> backward(const Sizes& s, const Matrix& anchors, const T* upstream) const {
    return {{upstream, 1, T(1)},
            anchors,
            gradient.data(),
            positive.data(),
            s.positives,
            temperature.data(),
            {intra_index.data(), intra.data(), s.intra.k},
            {cross_index.data(), cross.data(), s.cross.k}};
  }

  BackwardArrays<T> gradients() {
    return {grad_anchors.data(), grad_positives.data(), grad_temperatures.data()};
  }
};

// Sums of at most `terms` products in another order or fused: each term is rounded once or twice.
template <typename T>
void check_near(const std::vector<T>& ours, const std::vector<T>& theirs, int64_t terms) {
  T largest = 1;
  for (const T value : theirs) largest = std::max(largest, std::abs(value));
  const T allowed = 2 * static_cast<T>(terms) * std::numeric_limits<T>::epsilon() * largest;
  CHECK(ours.size() == theirs.size());
  for (size_t i = 0; i < ours.size(); ++i) CHECK(std::abs(ours[i] - theirs[i]) <= allowed);
}

template <typename T>
void compare(const Sizes& sizes, double max_similarity) {
  std::mt19937 random(static_cast<unsigned>(sizes.anchors * 31 + sizes.dim));
  const Columns<T> anchors(sizes.anchors, sizes, random);
  const Columns<T> positives(sizes.anchors * sizes.positives, sizes, random);
  const Columns<T> upstream(sizes.anchors, sizes, random);
  std::vector<Columns<T>> columns;
  for (const int64_t count : sizes.blocks) columns.emplace_back(count, sizes, random);
  std::vector<Frames> blocks;
  for (const Columns<T>& block : columns) blocks.push_back(block.frames());
  blocks.shrink_to_fit();
  const float window[] = {1.0f, 5.0f};
  const Problem problem{anchors.frames(), blocks.data(), static_cast<int64_t>(blocks.size()),
                        window,           false,         sizes.intra,
                        sizes.cross,      max_similarity};
  const T temperature = T(0.2), soft_nn = T(0.3);
  const std::vector<T> margins(sizes.anchors, T(-0.05));
  std::vector<T> weights;
  for (int64_t r = 0; r < sizes.anchors * sizes.positives; ++r) weights.push_back(1 + r % 3);
  const LossArguments<T> arguments{positives.frames().embedding,
                                   sizes.positives,
                                   sizes.limited ? weights.data() : nullptr,
                                   sizes.limited ? margins.data() : nullptr,
                                   true,
                                   &temperature,
                                   sizes.soft_nn ? &soft_nn : nullptr};
  Results<T> ours(sizes), theirs(sizes);
  emulation::HostMemory memory;
  const cuda::Call call{memory,
                        nullptr,
                        2,
                        227 << 10,
                        true,
                        sizes.way == Way::kWarpgroups,
                        sizes.way == Way::kOneLaunch,
                        sizes.way >= Way::kDense ? 0 : INT64_MAX};
  cuda::hard_negative_nce<T>(problem, arguments, ours.arrays(), call);
  cpu::hard_negative_nce<T>(problem, arguments, theirs.arrays());
  CHECK(ours.intra_index == theirs.intra_index && ours.cross_index == theirs.cross_index);
  CHECK(ours.intra_similarity == theirs.intra_similarity);
  CHECK(ours.cross_similarity == theirs.cross_similarity);
  const int64_t pairs = sizes.positives + sizes.intra.k + sizes.cross.k;
  check_near(ours.loss, theirs.loss, pairs);
  check_near(ours.positive, theirs.positive, pairs);
  check_near(ours.intra, theirs.intra, pairs);
  check_near(ours.cross, theirs.cross, pairs);
  check_near(ours.gradient, theirs.gradient, pairs);

  std::vector<T> grad_loss(upstream.embedding.begin(), upstream.embedding.begin() + sizes.anchors);
  const auto of = [&](const Results<T>& results) {
    return results.backward(sizes, problem.anchors.embedding, grad_loss.data());
  };
  cuda::hard_negative_nce_backward<T>(of(ours), ours.gradients(), call);
  cpu::hard_negative_nce_backward<T>(of(theirs), theirs.gradients());
  check_near(ours.grad_anchors, theirs.grad_anchors, pairs);
  check_near(ours.grad_positives, theirs.grad_positives, 1);
  check_near(ours.grad_temperatures, theirs.grad_temperatures, sizes.anchors);
  int64_t first = 0;
  for (size_t b = 0; b < blocks.size(); ++b) {
    const int64_t count = sizes.blocks[b];
    cuda::key_gradient<T>(of(ours), {first, count, ours.grad_keys[b].data()}, call);
    cpu::key_gradient<T>(of(theirs), {first, count, theirs.grad_keys[b].data()});
    check_near(ours.grad_keys[b], theirs.grad_keys[b], sizes.anchors * pairs);
    first += count;
  }
  T total = 0;
  cuda::sum_rows<T>(ours.loss.data(), sizes.anchors, 2, &total, call);
  cuda::select_negatives<T>(problem, ours.arrays().selection, call);
  cpu::select_negatives<T>(problem, nullptr, theirs.arrays().selection);
  CHECK(ours.intra_index == theirs.intra_index && ours.cross_index == theirs.cross_index);
}

template <typename T>
void compare_pairs(int64_t rows, int64_t per_anchor, int64_t dim, int64_t num_keys) {
  std::mt19937 random(static_cast<unsigned>(rows * 31 + dim));
  const Sizes sizes{rows, dim, 1, {num_keys}, {0, 0}, {0, 0}, 2, false, false, Way::kOneLaunch};
  const Columns<T> anchors(rows, sizes, random), keys(num_keys, sizes, random);
  std::uniform_int_distribution<int64_t> draw(-2, num_keys + 1);
  std::vector<int64_t> index(static_cast<size_t>(rows * per_anchor));
  for (int64_t& key : index) key = draw(random);
  std::vector<T> ours(index.size()), theirs(index.size());
  ScoredPairs<T> pairs{anchors.frames().embedding, keys.frames().embedding, index.data(),
                       per_anchor, ours.data()};
  emulation::HostMemory memory;
  cuda::similarities<T>(pairs, cuda::Call{memory, nullptr, 2, 227 << 10, true});
  pairs.similarity = theirs.data();
  cpu::similarities<T>(pairs);
  CHECK(ours == theirs);
}

template <typename T>
void compare_all() {
  const double no_limit = std::numeric_limits<double>::infinity();
  for (const Way way : {Way::kOneLaunch, Way::kByChain, Way::kDense, Way::kWarpgroups}) {
    compare<T>({0, 3, 1, {4}, {2, 0}, {2, 0}, 3, true, false, way}, no_limit);
    compare<T>({2, 3, 1, {0}, {2, 0}, {2, 0}, 3, true, true, way}, no_limit);
    compare<T>({1, 1, 2, {1}, {1, 0}, {1, 0}, 2, false, false, way}, no_limit);
    compare<T>({33, 33, 3, {5, 129, 1}, {3, 1}, {5, 2}, 6, true, true, way, true}, 0.5);
    compare<T>({5, 300, 40, {140, 20}, {200, 0}, {64, 100}, 3, false, true, way, true}, no_limit);
    compare<T>({3, 4, 1, std::vector<int64_t>(40, 3), {4, 0}, {8, 0}, 5, true, false, way},
               no_limit);
    compare<T>({40, 2, 1, {700}, {2, 0}, {3, 0}, 0, false, false, way}, no_limit);
  }
  for (const Way way : {Way::kByChain, Way::kDense}) {
    compare<T>({5, 3, 1, {1000, 2500}, {3, 0}, {40, 0}, 9, true, false, way}, no_limit);
  }
  compare_pairs<T>(3, 5, 7, 4);
  compare_pairs<T>(5, 130, 300, 50);
}

}  // namespace

// Takes the schedule's name, so that several can run at the same time.
int main(int, char** arguments) {
  using emulation::Schedule;
  const std::string name = arguments[1] == nullptr ? "" : arguments[1];
  CHECK(name == "forward" || name == "reverse" || name == "random");
  const auto schedule = name == "forward"   ? Schedule::kForward
                        : name == "reverse" ? Schedule::kReverse
                                            : Schedule::kRandom;
  cpu::set_num_threads(1);
  emulation::settings = {schedule, 5, 0, false};
  compare_all<float>();
  compare_all<double>();
  std::printf("%zu kernels\n", emulation::kernels_run().size());
  return 0;
}
