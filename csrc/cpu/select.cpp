#include "select.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "anchor_group.h"
#include "key_panel.h"
#include "parallel.h"
#include "tile.h"
#include "video_join.h"

namespace usucl::cpu {
namespace {

constexpr int64_t kPackedBytes = 256 << 10;  // of a group's anchors: half of a core's L2 cache
constexpr int64_t kKeysPerSplit = 2048;      // at least; fewer are not worth a thread
constexpr int64_t kPanelsPerSample = 16;     // one panel in so many is scored ahead of the rest
constexpr int64_t kKeysPerJoin = 1 << 20;    // bounds the memory of the video join
constexpr int64_t kIntraAnchorsPerTask = 64;

template <typename T>
using Found = std::vector<std::vector<Candidate<T>>>;  // [N]

template <typename T>
class NegativeSelector {
 public:
  NegativeSelector(const Problem& problem, const bool* excluded)
      : problem_(problem),
        excluded_(excluded),
        kernels_(tile_kernels<T>(capability_in_use())),
        keys_(problem) {}

  void select_cross_video(int64_t* index, T* similarity) const {
    const Ranks ranks = problem_.cross;
    if (ranks.k == 0) return;
    const std::vector<int64_t> anchors = anchors_taking_part();
    write_nothing_for_others(anchors, ranks, index, similarity);
    if (anchors.empty()) return;
    const Shares shares = share_out(static_cast<int64_t>(anchors.size()));
    const int64_t depth = std::min(ranks.depth(), keys_.count());
    const auto write = [&](int64_t anchor, std::vector<Candidate<T>>& candidates) {
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
        if (shares.splits > 1) continue;  // the other splits' candidates are needed too
        std::vector<Candidate<T>> candidates;
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
      std::vector<Candidate<T>> candidates;
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

  // Few keys share a video with an anchor, so they are joined by id and scored apart.
  void select_intra_video(int64_t* index, T* similarity) const {
    const Ranks ranks = problem_.intra;
    if (ranks.k == 0) return;
    const AnchorVideos videos(problem_.anchors, excluded_);
    const int64_t depth = std::min(ranks.depth(), keys_.count());
    Found<T> found(problem_.anchors.embedding.rows);
    for (int64_t begin = 0; begin < keys_.count() && problem_.windows != nullptr;
         begin += kKeysPerJoin) {
      const int64_t end = std::min(keys_.count(), begin + kKeysPerJoin);
      score_joined(videos, join(videos, keys_, begin, end), begin, depth, &found);
    }
    for (int64_t i = 0; i < problem_.anchors.embedding.rows; ++i) {
      write_ranks(found[i], ranks.k, ranks.skip, index + i * ranks.k, similarity + i * ranks.k);
    }
  }

 private:
  // How the cross-video pass is cut: groups of anchors x splits of the keys, a task each.
  struct Shares {
    int64_t groups;
    int64_t splits;
  };

  static int64_t share(int64_t count, int64_t number, int64_t shares) {
    return count * number / shares;
  }

  bool takes_part(int64_t anchor) const {
    return problem_.anchors.video[anchor] >= 0 && (excluded_ == nullptr || !excluded_[anchor]);
  }

  std::vector<int64_t> anchors_taking_part() const {
    std::vector<int64_t> anchors;
    for (int64_t i = 0; i < problem_.anchors.embedding.rows; ++i) {
      if (takes_part(i)) anchors.push_back(i);
    }
    return anchors;
  }

  void write_nothing_for_others(const std::vector<int64_t>& anchors, Ranks ranks, int64_t* index,
                                T* similarity) const {
    if (static_cast<int64_t>(anchors.size()) == problem_.anchors.embedding.rows) return;
    std::vector<Candidate<T>> none;
    for (int64_t i = 0; i < problem_.anchors.embedding.rows; ++i) {
      if (takes_part(i)) continue;
      write_ranks(none, ranks.k, ranks.skip, index + i * ranks.k, similarity + i * ranks.k);
    }
  }

  // Every group packs all keys of its split, and every split keeps candidates of its own; so groups
  // are as large as the cache allows, and keys are split only as far as threads are left.
  Shares share_out(int64_t anchors) const {
    const int64_t dim = problem_.anchors.embedding.dim, threads = num_threads();
    const int64_t height = kernels_.tile_anchors;
    const int64_t most = std::max<int64_t>(height, kPackedBytes / (dim * sizeof(T)));
    int64_t groups = (anchors + most - 1) / most;
    if (anchors / threads >= most / 4) groups = (groups + threads - 1) / threads * threads;
    const int64_t useful = std::max((keys_.count() + kKeysPerSplit - 1) / kKeysPerSplit,
                                    keys_.count() / kMaxRanked + 1);
    return {groups, std::clamp<int64_t>(threads / std::gcd(groups, threads), 1, useful)};
  }

  std::unique_ptr<AnchorGroup<T>> score_split(std::vector<int64_t> anchors, int64_t begin,
                                              int64_t end, int64_t depth) const {
    auto group = std::make_unique<AnchorGroup<T>>(problem_, kernels_, Relation::kCrossVideo, depth,
                                                  std::move(anchors), end - begin, begin);
    // First a sample from everywhere, which sets the limits: else keys in ascending order of
    // similarity, as a bank in order of time can have them, would all pass.
    const PanelSequence panels(keys_, begin, end, kernels_.tile_keys);
    for (int64_t p = 0; p < panels.count(); p += kPanelsPerSample) group->score(panels[p]);
    group->begin_pass();
    for (int64_t p = 0; p < panels.count(); ++p) {
      if (p % kPanelsPerSample != 0) group->score(panels[p]);
    }
    return group;
  }

  void score_joined(const AnchorVideos& videos, const KeysByVideo& keys, int64_t origin,
                    int64_t depth, Found<T>* found) const {
    struct Task {
      int64_t slot;
      std::vector<int64_t> anchors;
    };
    std::vector<Task> tasks;
    int64_t pairs = 0;
    for (int64_t slot = 0; slot < videos.count(); ++slot) {
      if (keys.size(slot) == 0) continue;
      const auto& anchors = videos.anchors(slot);
      const int64_t count = static_cast<int64_t>(anchors.size());
      pairs += count * keys.size(slot);
      for (int64_t a = 0; a < count; a += kIntraAnchorsPerTask) {
        tasks.push_back(
            {slot,
             {anchors.begin() + a, anchors.begin() + std::min(count, a + kIntraAnchorsPerTask)}});
      }
    }
    const auto run = [&](int64_t t) {
      const int64_t slot = tasks[t].slot, count = keys.size(slot);
      AnchorGroup<T> group(problem_, kernels_, Relation::kIntraVideo, std::min(depth, count),
                           std::move(tasks[t].anchors), count, origin);
      const uint32_t* offsets = &keys.offset[keys.first[slot]];
      for (int64_t done = 0; done < count;) {
        const KeyPanel panel =
            keys_.gather(offsets + done, count - done, origin, kernels_.tile_keys);
        group.score(panel);
        done += panel.count;
      }
      for (int64_t row = 0; row < group.num_anchors(); ++row) {
        auto& candidates = (*found)[group.anchor(row)];
        group.append(row, &candidates);
        if (static_cast<int64_t>(candidates.size()) <= depth) continue;
        std::nth_element(candidates.begin(), candidates.begin() + depth, candidates.end(),
                         ranks_before<T>);
        candidates.resize(depth);
      }
    };
    parallel_tasks(static_cast<int64_t>(tasks.size()), pairs * problem_.anchors.embedding.dim, run);
  }

  const Problem& problem_;
  const bool* excluded_;  // [N] or null
  const TileKernels<T>& kernels_;
  Keys keys_;
};

}  // namespace

template <typename T>
void select_negatives(const Problem& problem, const bool* excluded,
                      const SelectionArrays<T>& selection) {
  const NegativeSelector<T> selector(problem, excluded);
  selector.select_intra_video(selection.intra_index, selection.intra_similarity);
  selector.select_cross_video(selection.cross_index, selection.cross_similarity);
}

template void select_negatives(const Problem&, const bool*, const SelectionArrays<float>&);
template void select_negatives(const Problem&, const bool*, const SelectionArrays<double>&);

}  // namespace usucl::cpu
