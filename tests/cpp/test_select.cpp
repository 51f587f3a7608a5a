// The selection against a sort of all pairs, over kernels, thread counts and block splits.
#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "core/ordering.h"
#include "core/relation.h"
#include "core/similarity.h"
#include "cpu/kernels.h"
#include "kernels_for_tests.h"
#include "parallel_for_tests.h"

namespace {

using namespace usucl;

struct Columns {
  std::vector<float> embedding, time;
  std::vector<int64_t> video, patient;

  Columns(int64_t rows, int64_t dim, std::mt19937* random) {
    // Small integers: many ties, and dot products exact in any order.
    const auto draw = [&](int lo, int hi) {
      return std::uniform_int_distribution<int>(lo, hi)(*random);
    };
    for (int64_t i = 0; i < rows * dim; ++i) embedding.push_back(static_cast<float>(draw(-1, 1)));
    for (int64_t i = 0; i < rows; ++i) {
      time.push_back(static_cast<float>(draw(0, 9)));
      video.push_back(draw(-1, 4));
      patient.push_back(draw(-1, 2));
    }
  }

  // Rows begin .. end - 1.
  Frames frames(int64_t begin, int64_t end, int64_t dim) const {
    return {{embedding.data() + begin * dim, DType::kFloat32, end - begin, dim},
            video.data() + begin,
            time.data() + begin,
            patient.data() + begin};
  }
};

std::vector<Candidate<float>> sorted_group(const Problem& problem, int64_t anchor,
                                           Relation wanted) {
  std::vector<Candidate<float>> group;
  int64_t first = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Frames& block = problem.blocks[b];
    for (int64_t j = 0; j < block.embedding.rows; ++j) {
      const float s = similarity<float>(
          [&](int64_t d) { return element<float>(problem.anchors.embedding, anchor, d); },
          [&](int64_t d) { return element<float>(block.embedding, j, d); }, block.embedding.dim);
      const bool valid = valid_similarity(s, static_cast<float>(problem.max_similarity));
      if (valid &&
          relation(problem.anchors.tag(anchor), block.tag(j), problem.window(anchor)) == wanted) {
        group.push_back({s, first + j});
      }
    }
    first += block.embedding.rows;
  }
  std::sort(group.begin(), group.end(), ranks_before<float>);
  return group;
}

void check_ranks(const std::vector<Candidate<float>>& group, Ranks ranks, const int64_t* index,
                 const float* similarity) {
  for (int64_t r = 0; r < ranks.k; ++r) {
    const auto rank = static_cast<size_t>(ranks.skip + r);
    const bool there = rank < group.size();
    CHECK(index[r] == (there ? group[rank].index : -1));
    CHECK(similarity[r] ==
          (there ? group[rank].similarity : -std::numeric_limits<float>::infinity()));
  }
}

void test_selection(int64_t anchors, int64_t keys, int64_t dim, Ranks intra, Ranks cross,
                    double max_similarity) {
  std::mt19937 random(static_cast<unsigned>(anchors * 31 + keys * 7 + dim));
  const Columns a(anchors, dim, &random), k(keys, dim, &random);
  const float window[] = {1.0f, 5.0f};
  for (const int64_t cut : {int64_t{0}, keys / 3, keys}) {
    const Frames blocks[] = {k.frames(0, cut, dim), k.frames(cut, keys, dim)};
    const Problem problem{
        a.frames(0, anchors, dim), blocks, 2, window, false, intra, cross, max_similarity};
    for (const auto& [name, kernels] : cpu::kernels_to_try<float>()) {
      cpu::set_num_threads(name == "portable" || name == "shape of avx2" ? 3 : 1);
      std::vector<int64_t> intra_index(anchors * intra.k), cross_index(anchors * cross.k);
      std::vector<float> intra_similarity(anchors * intra.k), cross_similarity(anchors * cross.k);
      cpu::select_negatives<float>(problem, nullptr,
                                   {intra_index.data(), intra_similarity.data(), cross_index.data(),
                                    cross_similarity.data()},
                                   kernels);
      for (int64_t i = 0; i < anchors; ++i) {
        check_ranks(sorted_group(problem, i, Relation::kIntraVideo), intra,
                    intra_index.data() + i * intra.k, intra_similarity.data() + i * intra.k);
        check_ranks(sorted_group(problem, i, Relation::kCrossVideo), cross,
                    cross_index.data() + i * cross.k, cross_similarity.data() + i * cross.k);
      }
    }
  }
}

void test_key_gradient() {
  const int64_t index[] = {0, 2, 2, -1, 5, 2};
  const float weight[] = {1, 2, 3, 100, 4, 5}, upstream[] = {1, 10, 100}, anchors[] = {1, 2, 3};
  BackwardArguments<float> arguments{};
  arguments.upstream = {upstream, 1, 1.0f};
  arguments.anchors = {anchors, DType::kFloat32, 3, 1};
  arguments.cross = {index, weight, 2};
  float grad[3];
  cpu::key_gradient<float>(arguments, {1, 3, grad});  // keys 1, 2, 3
  CHECK(grad[0] == 0 && grad[1] == 2 * 1 + 30 * 2 + 500 * 3 && grad[2] == 0);
}

}  // namespace

int main() {
  const double no_limit = std::numeric_limits<double>::infinity();
  test_selection(0, 5, 3, {2, 0}, {2, 0}, no_limit);
  test_selection(5, 0, 3, {2, 0}, {2, 0}, no_limit);
  test_selection(1, 1, 1, {1, 0}, {1, 0}, no_limit);
  test_selection(17, 33, 7, {3, 1}, {5, 2}, no_limit);
  test_selection(17, 33, 7, {40, 0}, {64, 3}, 1.0);
  test_selection(50, 1000, 5, {4, 0}, {8, 0}, no_limit);
  test_selection(50, 2100, 5, {0, 0}, {2, 0}, no_limit);  // enough keys for nomination
  test_selection(29, 777, 9, {0, 0}, {100, 50}, 2.0);
  test_key_gradient();
  return 0;
}
