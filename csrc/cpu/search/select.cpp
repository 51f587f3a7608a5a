#include "../kernels.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "../parallel.h"
#include "../tile/pair_batch.h"
#include "../tile/tile.h"
#include "anchor_group.h"
#include "key_panel.h"
#include "video_join.h"

namespace usucl::cpu {
namespace {

constexpr int64_t kPackedBytes = 256 << 10;  // packed anchors of a group: half of a core's L2 cache
constexpr int64_t kKeysPerSplit = 2048;      // the least; fewer are not worth a thread
constexpr int64_t kPanelsPerSample = 16;     // one panel in this many is scored ahead of the rest
constexpr int64_t kKeysPerJoin = 1 << 20;    // bounds the memory of the video join
constexpr int64_t kIntraAnchorsPerTask = 64;
constexpr int64_t kPairsNotWorthPacking = 16;

template <typename T>
using Candidates = std::vector<typename Rank<T>::Key>;

template <typename T>
class NegativeSelector {
 public:
  NegativeSelector(const Problem& problem, const bool* excluded, const TileKernels<T>& kernels)
      : problem_(problem), excluded_(excluded), kernels_(kernels), keys_(problem) {}

  int64_t num_keys() const { return keys_.count(); }

  void select_cross_video(int64_t* index, T* similarity) const {
    const Ranks ranks = problem_.cross;
    if (ranks.k == 0) return;
    const int64_t depth = ranks.depth(keys_.count());
    const std::vector<int64_t> anchors =
        depth == 0 ? std::vector<int64_t>() : anchors_taking_part();
    write_nothing_for_others(anchors, ranks, index, similarity);
    if (anchors.empty()) return;
    const Shares shares = share_out(static_cast<int64_t>(anchors.size()));
    const auto write = [&](int64_t anchor, Candidates<T>& candidates) {
      write_ranks(candidates, ranks.k, ranks.skip, index + anchor * ranks.k,
                  similarity + anchor * ranks.k);
    };

    std::vector<std::unique_ptr<AnchorGroup<T>>> done(shares.groups * shares.splits);
    parallel_for(shares.groups * shares.splits, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t g = i / shares.splits, s = i % shares.splits;
        const auto from = anchors.begin() + share(anchors.size(), g, shares.groups);
        const auto to = anchors.begin() + share(anchors.size(), g + 1, shares.groups);
        done[i] = score_split({from, to}, share(keys_.count(), s, shares.splits),
                              share(keys_.count(), s + 1, shares.splits), depth);
        if (shares.splits > 1) continue;  // needs the other splits' candidates
        Candidates<T> candidates;
        for (int64_t row = 0; row < done[i]->num_anchors(); ++row) {
          candidates.clear();
          done[i]->append(row, &candidates);
          write(done[i]->anchor(row), candidates);
        }
        done[i].reset();
      }
    });
    if (shares.splits == 1) return;
    const int64_t rows = static_cast<int64_t>(anchors.size());
    parallel_for(rows, grain_for(16 * depth * shares.splits), [&](int64_t begin, int64_t end) {
      Candidates<T> candidates;
      for (int64_t a = begin, g = 0; a < end; ++a) {
        while (share(rows, g + 1, shares.groups) <= a) ++g;
        candidates.clear();
        for (int64_t s = 0; s < shares.splits; ++s) {
          done[g * shares.splits + s]->append(a - share(rows, g, shares.groups), &candidates);
        }
        write(anchors[a], candidates);
      }
    });
  }

  // Few keys share a video with an anchor, so these are joined by id and scored separately.
  void select_intra_video(int64_t* index, T* similarity) const {
    const Ranks ranks = problem_.intra;
    if (ranks.k == 0) return;
    const AnchorVideos videos(problem_.anchors, excluded_);
    const int64_t depth = problem_.windows == nullptr ? 0 : ranks.depth(keys_.count());
    std::vector<Candidates<T>> found(problem_.anchors.embedding.rows);
    for (int64_t begin = 0; begin < keys_.count() && depth > 0; begin += kKeysPerJoin) {
      const int64_t end = std::min(keys_.count(), begin + kKeysPerJoin);
      score_joined(videos, join(videos, keys_, begin, end), depth, &found);
    }
    for (int64_t i = 0; i < problem_.anchors.embedding.rows; ++i) {
      write_ranks(found[i], ranks.k, ranks.skip, index + i * ranks.k, similarity + i * ranks.k);
    }
  }

 private:
  // How the cross-video pass is divided: anchor groups x key splits, one task each.
  struct Shares {
    int64_t groups;
    int64_t splits;
  };

  static int64_t share(int64_t count, int64_t number, int64_t shares) {
    return count * number / shares;
  }

  std::vector<int64_t> anchors_taking_part() const {
    std::vector<int64_t> anchors;
    for (int64_t i = 0; i < problem_.anchors.embedding.rows; ++i) {
      const bool excluded = excluded_ != nullptr && excluded_[i];
      if (!excluded && !problem_.anchors.is_empty(i)) anchors.push_back(i);
    }
    return anchors;
  }

  void write_nothing_for_others(const std::vector<int64_t>& anchors, Ranks ranks, int64_t* index,
                                T* similarity) const {
    Candidates<T> none;
    auto next = anchors.begin();
    for (int64_t i = 0; i < problem_.anchors.embedding.rows; ++i) {
      if (next != anchors.end() && *next == i) {
        ++next;
        continue;
      }
      write_ranks(none, ranks.k, ranks.skip, index + i * ranks.k, similarity + i * ranks.k);
    }
  }

  // Every group packs all keys of its split, and every split keeps its own candidates. So groups
  // are as large as the cache allows, and keys are split only as far as threads are left.
  Shares share_out(int64_t anchors) const {
    const int64_t dim = problem_.anchors.embedding.dim, threads = num_threads();
    const int64_t height = kernels_.tile_anchors;
    const int64_t most = std::max<int64_t>(height, kPackedBytes / (dim * sizeof(T)));
    int64_t groups = ceil_divide(anchors, most);
    if (anchors / threads >= most / 4) groups = round_up(groups, threads);
    const int64_t useful = std::max<int64_t>(1, keys_.count() / kKeysPerSplit);
    return {groups, std::clamp<int64_t>(threads / std::gcd(groups, threads), 1, useful)};
  }

  std::unique_ptr<AnchorGroup<T>> score_split(std::vector<int64_t> anchors, int64_t begin,
                                              int64_t end, int64_t depth) const {
    auto group = std::make_unique<AnchorGroup<T>>(problem_, keys_, kernels_, Relation::kCrossVideo,
                                                  depth, std::move(anchors), end - begin);
    score_all(PanelSequence(keys_, begin, end, kernels_.tile_keys), group.get());
    return group;
  }

  // A sample from everywhere comes first and sets the limits. Otherwise keys in ascending order of
  // similarity, which a bank in temporal order can have, would all pass.
  template <typename Panels>
  static void score_all(const Panels& panels, AnchorGroup<T>* group) {
    score_each(panels, [](int64_t p) { return p % kPanelsPerSample == 0; }, group);
    group->begin_pass();
    score_each(panels, [](int64_t p) { return p % kPanelsPerSample != 0; }, group);
    group->finish();
  }

  template <typename Panels, typename Wanted>
  static void score_each(const Panels& panels, const Wanted& wanted, AnchorGroup<T>* group) {
    const auto next = [&](int64_t p) {
      while (p < panels.count() && !wanted(p)) ++p;
      return p;
    };
    int64_t p = next(0);
    if (p == panels.count()) return;
    KeyPanel panel = panels[p];
    for (p = next(p + 1); p < panels.count(); p = next(p + 1)) {
      const KeyPanel ahead = panels[p];
      group->score(panel, &ahead);
      panel = ahead;
    }
    group->score(panel, nullptr);
  }

  void score_joined(const AnchorVideos& videos, const KeysByVideo& keys, int64_t depth,
                    std::vector<Candidates<T>>* found) const {
    struct Task {
      int64_t slot;
      int64_t first_anchor;  // within the slot
    };
    std::vector<Task> tasks;
    int64_t pairs = 0;
    for (int64_t slot = 0; slot < videos.count(); ++slot) {
      const auto anchors = static_cast<int64_t>(videos.anchors(slot).size());
      pairs += anchors * keys.size(slot);
      if (keys.size(slot) == 0) continue;
      for (int64_t a = 0; a < anchors; a += kIntraAnchorsPerTask) tasks.push_back({slot, a});
    }
    const auto run = [&](int64_t t) {
      const auto [slot, first] = tasks[t];
      const auto begin = videos.anchors(slot).begin() + first, end = videos.anchors(slot).end();
      const std::vector<int64_t> anchors(begin,
                                         begin + std::min(kIntraAnchorsPerTask, end - begin));
      const uint32_t* indices = &keys.index[keys.first[slot]];
      if (static_cast<int64_t>(anchors.size()) * keys.size(slot) <= kPairsNotWorthPacking) {
        score_pairs(anchors, indices, keys.size(slot), found);
      } else {
        score_panels(anchors, indices, keys.size(slot), depth, found);
      }
      for (const int64_t anchor : anchors) truncate(&(*found)[anchor], depth);
    };
    parallel_tasks(static_cast<int64_t>(tasks.size()), pairs * problem_.anchors.embedding.dim, run);
  }

  void score_panels(const std::vector<int64_t>& anchors, const uint32_t* indices, int64_t count,
                    int64_t depth, std::vector<Candidates<T>>* found) const {
    AnchorGroup<T> group(problem_, keys_, kernels_, Relation::kIntraVideo, std::min(depth, count),
                         anchors, count);
    score_all(PanelsOfIndices(keys_, indices, count, kernels_.tile_keys), &group);
    for (int64_t row = 0; row < group.num_anchors(); ++row) {
      group.append(row, &(*found)[group.anchor(row)]);
    }
  }

  void score_pairs(const std::vector<int64_t>& anchors, const uint32_t* indices, int64_t count,
                   std::vector<Candidates<T>>* found) const {
    struct Pair {
      int64_t anchor;
      uint32_t key;
    };
    PairBatch<T, Pair> batch(kernels_, problem_.anchors.embedding);
    const auto keep = [&](const Pair& pair, T similarity) {
      if (!valid_similarity(similarity, problem_.greatest_valid<T>(pair.anchor))) return;
      (*found)[pair.anchor].push_back(Rank<T>::key(similarity, pair.key));
    };
    for (const int64_t anchor : anchors) {
      for (int64_t j = 0; j < count; ++j) {
        const auto [block, row] = keys_.place_of(indices[j]);
        if (relation(problem_.anchors.tag(anchor), block->tag(row), problem_.window(anchor)) ==
            Relation::kIntraVideo) {
          batch.add(anchor, block->embedding, row, {anchor, indices[j]}, keep);
        }
      }
    }
    batch.flush(keep);
  }

  const Problem& problem_;
  const bool* excluded_;  // [N] or null
  const TileKernels<T>& kernels_;
  Keys keys_;
};

}  // namespace

template <typename T>
void select_negatives(const Problem& problem, const bool* excluded,
                      const SelectionArrays<T>& selection, const TileKernels<T>& kernels) {
  const NegativeSelector<T> selector(problem, excluded, kernels);
  if (selector.num_keys() > kMaxKeys) {
    throw std::length_error("negatives must hold at most 2^32 keys in a call on the CPU, got " +
                            std::to_string(selector.num_keys()));
  }
  selector.select_intra_video(selection.intra_index, selection.intra_similarity);
  selector.select_cross_video(selection.cross_index, selection.cross_similarity);
}

template void select_negatives(const Problem&, const bool*, const SelectionArrays<float>&,
                               const TileKernels<float>&);
template void select_negatives(const Problem&, const bool*, const SelectionArrays<double>&,
                               const TileKernels<double>&);

}  // namespace usucl::cpu
