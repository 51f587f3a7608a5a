#include "select.h"

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <vector>

#include "../core/relation.h"
#include "../core/similarity.h"
#include "panels.h"
#include "parallel.h"
#include "reservoir.h"
#include "tile.h"

namespace usucl::cpu {
namespace {

constexpr int64_t kAnchorsPerTask = 480;  // their panels stay in a core's L2 cache
constexpr int64_t kKeysPerSplit = 2048;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One task of the cross-video pass: some tiles of anchors against some panels of keys.
template <typename T>
struct CrossVideoTask {
  const Problem& problem;
  const TileKernels<T>& kernels;
  const KeyPanels& keys;
  const T* anchor_panels;  // [tiles, D, tile_anchors]
  const bool* excluded;    // [N] or null
  T max_similarity;

  // found [N]: what this share of the keys holds for each anchor.
  void run(int64_t first_tile, int64_t last_tile, int64_t first_panel, int64_t last_panel,
           Reservoir<T>* found) const {
    const int64_t dim = problem.anchors.embedding.dim;
    const int height = kernels.tile_anchors, width = kernels.tile_keys;
    std::vector<T> panel(dim * width, T(0));
    std::vector<T> threshold((last_tile - first_tile) * height);
    for (int64_t i = 0; i < static_cast<int64_t>(threshold.size()); ++i) {
      threshold[i] = takes_part(first_tile * height + i) ? T(-kInfinity) : T(kInfinity);
    }
    alignas(64) T similarity[kMaxTileAnchors * kMaxTileKeys];
    uint32_t hits[kMaxTileAnchors];
    for (int64_t p = first_panel; p < last_panel; ++p) {
      const KeyPanel key = keys[p];
      for (int j = 0; j < key.count; ++j) {
        pack_row(key.block->embedding, key.row + j, panel.data(), width, j);
      }
      for (int64_t t = first_tile; t < last_tile; ++t) {
        T* limits = threshold.data() + (t - first_tile) * height;
        const T* anchors = anchor_panels + t * dim * height;
        if (!kernels.score_tile(anchors, panel.data(), dim, limits, similarity, hits)) continue;
        for (int i = 0; i < height; ++i) {
          const int64_t anchor = t * height + i;
          if (hits[i] == 0 || !takes_part(anchor)) continue;
          add_survivors(anchor, key, hits[i], similarity + i * width, found + anchor);
          limits[i] = found[anchor].threshold();
        }
      }
    }
  }

 private:
  bool takes_part(int64_t anchor) const {
    return anchor < problem.anchors.embedding.rows && problem.anchors.video[anchor] >= 0 &&
           (excluded == nullptr || !excluded[anchor]);
  }

  void add_survivors(int64_t anchor, const KeyPanel& key, uint32_t hits, const T* similarity,
                     Reservoir<T>* found) const {
    const FrameTag tag = problem.anchors.tag(anchor);
    const Window window = problem.window(anchor);
    for (int j = 0; j < key.count; ++j) {
      if ((hits >> j & 1u) == 0 || !valid_similarity(similarity[j], max_similarity)) continue;
      if (relation(tag, key.block->tag(key.row + j), window) != Relation::kCrossVideo) continue;
      found->add({canonical(similarity[j]), key.first_index + j});
    }
  }
};

template <typename T>
std::vector<T> pack_anchors(const Matrix& anchors, int height) {
  const int64_t tiles = (anchors.rows + height - 1) / height;
  std::vector<T> panels(tiles * anchors.dim * height, T(0));
  for (int64_t row = 0; row < anchors.rows; ++row) {
    pack_row(anchors, row, panels.data() + row / height * anchors.dim * height, height,
             row % height);
  }
  return panels;
}

template <typename T>
void select_cross_video(const Problem& problem, const bool* excluded, const TileKernels<T>& kernels,
                        int64_t* index, T* similarity) {
  const Ranks ranks = problem.cross;
  const int64_t rows = problem.anchors.embedding.rows;
  if (rows == 0 || ranks.k == 0) return;
  const KeyPanels keys(problem, kernels.tile_keys);
  const int height = kernels.tile_anchors;
  const int64_t tiles = (rows + height - 1) / height;
  const int64_t tiles_per_task = std::max<int64_t>(1, kAnchorsPerTask / height);
  const int64_t groups = (tiles + tiles_per_task - 1) / tiles_per_task;
  // Few anchors: the keys are split too, so that every thread has work worth waking it for.
  const int64_t most = 1 + keys.num_keys() / kKeysPerSplit;
  const int64_t splits = std::clamp<int64_t>((num_threads() + groups - 1) / groups, 1, most);

  const std::vector<T> panels = pack_anchors<T>(problem.anchors.embedding, height);
  const CrossVideoTask<T> task{problem,       kernels,  keys,
                               panels.data(), excluded, static_cast<T>(problem.max_similarity)};
  const int64_t depth = std::min(ranks.depth(), keys.num_keys());
  std::vector<Reservoir<T>> found(splits * rows, Reservoir<T>(depth));
  parallel_for(groups * splits, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / splits, split = i % splits;
      task.run(group * tiles_per_task, std::min(tiles, (group + 1) * tiles_per_task),
               keys.count() * split / splits, keys.count() * (split + 1) / splits,
               found.data() + split * rows);
    }
  });
  parallel_for(rows, grain_for(16 * depth * splits), [&](int64_t begin, int64_t end) {
    std::vector<Candidate<T>> all;
    for (int64_t anchor = begin; anchor < end; ++anchor) {
      all.clear();
      for (int64_t split = 0; split < splits; ++split) {
        const auto& kept = found[split * rows + anchor].kept();
        all.insert(all.end(), kept.begin(), kept.end());
      }
      write_ranks(all, ranks.k, ranks.skip, index + anchor * ranks.k,
                  similarity + anchor * ranks.k);
    }
  });
}

// The keys of each video that has an anchor, in order of index.
std::unordered_map<int64_t, std::vector<int64_t>> join_by_video(const Problem& problem) {
  std::unordered_map<int64_t, std::vector<int64_t>> keys_of;
  for (int64_t i = 0; i < problem.anchors.embedding.rows; ++i) {
    if (problem.anchors.video[i] >= 0) keys_of[problem.anchors.video[i]];
  }
  int64_t index = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) {
    const Frames& block = problem.blocks[b];
    for (int64_t row = 0; row < block.embedding.rows; ++row, ++index) {
      const auto video = keys_of.find(block.video[row]);
      if (video != keys_of.end()) video->second.push_back(index);
    }
  }
  return keys_of;
}

// Few keys share an anchor's video, so they are joined by id and scored a panel at a time.
template <typename T>
void select_intra_video(const Problem& problem, const bool* excluded, const TileKernels<T>& kernels,
                        int64_t* index, T* similarity) {
  const Ranks ranks = problem.intra;
  if (ranks.k == 0) return;
  const Matrix& anchors = problem.anchors.embedding;
  const auto max_similarity = static_cast<T>(problem.max_similarity);
  const KeyPanels keys(problem, kernels.tile_keys);
  const auto keys_of = join_by_video(problem);
  int64_t joined = 0;
  for (const auto& video : keys_of) joined += static_cast<int64_t>(video.second.size());
  const int64_t keys_per_video = joined / std::max<int64_t>(1, keys_of.size());
  const int64_t grain = grain_for(2 * anchors.dim * (1 + keys_per_video));
  parallel_for(anchors.rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> query(anchors.dim), panel(anchors.dim * kernels.tile_keys, T(0));
    std::vector<Candidate<T>> found;
    T scores[kMaxTileKeys];
    for (int64_t anchor = begin; anchor < end; ++anchor) {
      found.clear();
      const auto video = keys_of.find(problem.anchors.video[anchor]);
      if (video != keys_of.end() && (excluded == nullptr || !excluded[anchor])) {
        const FrameTag tag = problem.anchors.tag(anchor);
        const Window window = problem.window(anchor);
        pack_row(anchors, anchor, query.data(), 1, 0);
        int64_t pending[kMaxTileKeys];
        int count = 0;
        const auto score_pending = [&] {
          kernels.score_row(query.data(), panel.data(), anchors.dim, scores);
          for (int j = 0; j < count; ++j) {
            if (!valid_similarity(scores[j], max_similarity)) continue;
            found.push_back({canonical(scores[j]), pending[j]});
          }
          count = 0;
        };
        for (const int64_t key_index : video->second) {
          const KeyPanel key = keys.key(key_index);
          if (relation(tag, key.block->tag(key.row), window) != Relation::kIntraVideo) continue;
          pack_row(key.block->embedding, key.row, panel.data(), kernels.tile_keys, count);
          pending[count++] = key_index;
          if (count == kernels.tile_keys) score_pending();
        }
        if (count > 0) score_pending();
      }
      write_ranks(found, ranks.k, ranks.skip, index + anchor * ranks.k,
                  similarity + anchor * ranks.k);
    }
  });
}

}  // namespace

template <typename T>
void select_negatives(const Problem& problem, const bool* excluded,
                      const SelectionArrays<T>& selection) {
  const TileKernels<T>& kernels = tile_kernels<T>(capability_in_use());
  select_intra_video(problem, excluded, kernels, selection.intra_index, selection.intra_similarity);
  select_cross_video(problem, excluded, kernels, selection.cross_index, selection.cross_similarity);
}

template <typename T>
void score_rows(const T* anchor, const Matrix& matrix, int64_t first_row, int64_t count,
                T* similarity) {
  const TileKernels<T>& kernels = tile_kernels<T>(capability_in_use());
  std::vector<T> panel(matrix.dim * kernels.tile_keys, T(0));
  T scores[kMaxTileKeys];
  for (int64_t done = 0; done < count; done += kernels.tile_keys) {
    const int64_t now = std::min<int64_t>(kernels.tile_keys, count - done);
    for (int64_t j = 0; j < now; ++j) {
      pack_row(matrix, first_row + done + j, panel.data(), kernels.tile_keys, j);
    }
    kernels.score_row(anchor, panel.data(), matrix.dim, scores);
    for (int64_t j = 0; j < now; ++j) similarity[done + j] = canonical(scores[j]);
  }
}

template void select_negatives(const Problem&, const bool*, const SelectionArrays<float>&);
template void select_negatives(const Problem&, const bool*, const SelectionArrays<double>&);
template void score_rows(const float*, const Matrix&, int64_t, int64_t, float*);
template void score_rows(const double*, const Matrix&, int64_t, int64_t, double*);

}  // namespace usucl::cpu
