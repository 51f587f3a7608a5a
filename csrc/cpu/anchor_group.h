// Some anchors, packed, and the hardest keys each of them has met so far.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "../core/relation.h"
#include "../core/similarity.h"
#include "aligned.h"
#include "key_panel.h"
#include "nominator.h"
#include "pair_batch.h"
#include "reservoir.h"
#include "tile.h"

namespace usucl::cpu {

// Fetches the rows of a panel in equal parts, one a call, so that memory is read while the
// processor computes: rows that lie apart are beyond what it foresees by itself.
class Prefetch {
 public:
  Prefetch(const KeyPanel* panel, int64_t calls) {
    if (panel == nullptr) return;
    const Matrix& matrix = panel->block->embedding;
    panel_ = panel;
    lines_per_row_ = (matrix.dim * bytes_of(matrix.dtype) + kCacheLine - 1) / kCacheLine;
    lines_ = lines_per_row_ * panel->count;
    lines_per_call_ = (lines_ + calls - 1) / calls;
  }

  void some() {
    for (const int64_t end = std::min(lines_, done_ + lines_per_call_); done_ < end; ++done_) {
      const int64_t j = done_ / lines_per_row_;
      const void* row = row_of(panel_->block->embedding, panel_->row[j]);
      __builtin_prefetch(static_cast<const char*>(row) + done_ % lines_per_row_ * kCacheLine, 0, 2);
    }
  }

 private:
  const KeyPanel* panel_ = nullptr;
  int64_t lines_per_row_ = 1, lines_ = 0, lines_per_call_ = 0, done_ = 0;
};

// Scores its anchors against one panel of keys after another. Of each tile only similarities above
// the anchor's limit leave the registers; mask and exact order are evaluated on those alone.
template <typename T>
class AnchorGroup {
 public:
  using RankKey = typename Rank<T>::Key;

  // wanted: the relation of the keys to keep, `depth` of them an anchor. num_keys: the most that
  // will be scored.
  AnchorGroup(const Problem& problem, const TileKernels<T>& kernels, Relation wanted, int64_t depth,
              std::vector<int64_t> anchors, int64_t num_keys)
      : problem_(problem),
        kernels_(kernels),
        wanted_(wanted),
        max_similarity_(static_cast<T>(problem.max_similarity)),
        anchors_(std::move(anchors)),
        nominator_(problem.anchors.embedding, anchors_, kernels),
        kept_(num_anchors(), depth, num_keys, kernels.tile_keys) {
    const int64_t height = kernels.tile_anchors, dim = problem.anchors.embedding.dim;
    const int64_t tiles = (num_anchors() + height - 1) / height;
    packed_ = aligned_array<T>(tiles * height * dim);
    panel_ = aligned_array<T>(kernels.tile_keys * dim);
    // The last tile's missing anchors: never a hit.
    limit_.assign(tiles * height, std::numeric_limits<T>::infinity());
    std::fill_n(limit_.begin(), num_anchors(), -std::numeric_limits<T>::infinity());
    for (int64_t t = 0; t < tiles; ++t) pack_tile(t);
  }

  int64_t num_anchors() const { return static_cast<int64_t>(anchors_.size()); }
  int64_t anchor(int64_t row) const { return anchors_[row]; }

  // Keys come in ascending order, panel by panel, until the next call of begin_pass; each key
  // comes once in all passes.
  void begin_pass() {
    for (int64_t row = 0; row < num_anchors(); ++row) set_limit(row, -1);
  }

  // next: the panel to be scored after this one, which is fetched into the cache meanwhile, or
  // null.
  void score(const KeyPanel& keys, const KeyPanel* next) {
    if (keys.all_slots_empty()) return;
    const int64_t height = kernels_.tile_anchors, dim = problem_.anchors.embedding.dim;
    const void* rows[kMaxTileKeys];
    for (int j = 0; j < keys.count; ++j) rows[j] = row_of(keys.block->embedding, keys.row[j]);
    if constexpr (std::is_same_v<T, float>) {
      if (nominator_.load(rows, keys.block->embedding.dtype, keys.count, limit_)) {
        return nominate_panel(keys, next);
      }
    }
    // What a partial panel lacks could be anything, and subnormal numbers are slow.
    if (keys.count < kernels_.tile_keys) std::fill_n(panel_.get(), kernels_.tile_keys * dim, T(0));
    kernels_.pack_keys(rows, keys.block->embedding.dtype, keys.count, dim, panel_.get());
    alignas(64) T similarity[kMaxTileAnchors * kMaxTileKeys];
    for_each_tile(keys, next, [&](int64_t t, uint64_t columns, uint64_t* hits) {
      const int64_t first = t * height;
      if (!kernels_.score_tile(packed_.get() + first * dim, panel_.get(), dim, &limit_[first],
                               similarity, hits)) {
        return;
      }
      for (int64_t i = 0; i < height; ++i) {
        const uint64_t hit = hits[i] & columns;
        if (hit != 0) keep(first + i, keys, hit, similarity + i * kernels_.tile_keys);
      }
    });
  }

  void append(int64_t row, std::vector<RankKey>* out) const { kept_.append(row, out); }

 private:
  void pack_tile(int64_t tile) {
    const int64_t height = kernels_.tile_anchors, dim = problem_.anchors.embedding.dim;
    T* panel = packed_.get() + tile * height * dim;
    const Frames& anchors = problem_.anchors;
    for (int64_t i = 0; i < height; ++i) {
      const int64_t row = tile * height + i;
      if (row >= num_anchors()) {
        for (int64_t d = 0; d < dim; ++d) panel[d * height + i] = 0;
        continue;
      }
      with_row(anchors.embedding, anchors_[row], [&](const auto* elements) {
        for (int64_t d = 0; d < dim; ++d) {
          panel[d * height + i] = static_cast<T>(upcast(elements[d]));
        }
      });
    }
    const int64_t first = tile * height, count = std::min(height, num_anchors() - first);
    only_video_.push_back(only_id(anchors.video, &anchors_[first], count));
    only_patient_.push_back(only_id(anchors.patient, &anchors_[first], count));
  }

  // Calls score(tile, columns, hits) for each tile that can have pairs with the panel. columns: a
  // bit a key. hits [kMaxTileAnchors]: for its use.
  template <typename Score>
  void for_each_tile(const KeyPanel& keys, const KeyPanel* next, const Score& score) {
    // A whole tile of one video, or of one known patient, against a panel of the same holds no
    // cross-video pair.
    const bool cross = wanted_ == Relation::kCrossVideo;
    const int64_t video = cross ? keys.only(keys.block->video) : kSeveral;
    const int64_t patient = cross ? keys.only(keys.block->patient) : kSeveral;
    const auto tiles = static_cast<int64_t>(only_video_.size());
    const uint64_t columns = (uint64_t{1} << keys.count) - 1;
    Prefetch prefetch(next, tiles);
    uint64_t hits[kMaxTileAnchors];
    for (int64_t t = 0; t < tiles; ++t) {
      prefetch.some();
      const bool same_video = video != kSeveral && only_video_[t] == video;
      const bool same_patient = patient != kSeveral && only_patient_[t] == patient;
      if (!same_video && !same_patient) score(t, columns, hits);
    }
  }

  // Of nominees with the wanted relation the similarities are computed, several pairs at a time.
  void nominate_panel(const KeyPanel& keys, const KeyPanel* next) {
    struct Pair {
      int64_t row;
      int j;
    };
    PairBatch<T, Pair> batch(kernels_, problem_.anchors.embedding);
    const int64_t last = keys.index(keys.count - 1);
    const auto decide = [&](const Pair& pair, T similarity) {
      if (!valid_similarity(similarity, max_similarity_)) return;
      const auto key = Rank<T>::key(similarity, keys.index(pair.j));
      if (key <= kept_.least(pair.row)) return;
      kept_.add(pair.row, key);
      kept_.settle(pair.row);
      set_limit(pair.row, last);
    };
    int64_t nominated = 0;
    for_each_tile(keys, next, [&](int64_t t, uint64_t columns, uint64_t* hits) {
      if (!nominator_.nominate(t, hits)) return;
      const int64_t first = t * kernels_.tile_anchors;
      const int64_t end = std::min(first + kernels_.tile_anchors, num_anchors());
      for (int64_t row = first; row < end; ++row) {
        const FrameTag tag = problem_.anchors.tag(anchors_[row]);
        const Window window = problem_.window(anchors_[row]);
        for (uint64_t hit = hits[row - first] & columns; hit != 0; hit &= hit - 1) {
          const int j = __builtin_ctzll(hit);
          ++nominated;
          if (relation(tag, keys.block->tag(keys.row[j]), window) != wanted_) continue;
          batch.add(anchors_[row], keys.block->embedding, keys.row[j], {row, j}, decide);
        }
      }
    });
    batch.flush(decide);
    nominator_.report(nominated);
  }

  void keep(int64_t row, const KeyPanel& keys, uint64_t hits, const T* similarity) {
    const int64_t anchor = anchors_[row];
    const FrameTag tag = problem_.anchors.tag(anchor);
    const Window window = problem_.window(anchor);
    const auto least = kept_.least(row);
    for (; hits != 0; hits &= hits - 1) {
      const int j = __builtin_ctzll(hits);
      if (!valid_similarity(similarity[j], max_similarity_)) continue;
      if (relation(tag, keys.block->tag(keys.row[j]), window) != wanted_) continue;
      const auto key = Rank<T>::key(canonical(similarity[j]), keys.index(j));
      if (key > least) kept_.add(row, key);
    }
    kept_.settle(row);
    set_limit(row, keys.index(keys.count - 1));
  }

  // `last`: keys of this pass up to that index have been scored. The least of a full row is
  // beaten by what is more similar; by its equals only while keys of a lower index may still come.
  void set_limit(int64_t row, int64_t last) {
    const auto least = kept_.least(row);
    if (least == Rank<T>::kNone) return;
    const T similarity = Rank<T>::similarity(least);
    limit_[row] = Rank<T>::index(least) <= last ? similarity : just_below(similarity);
  }

  // A normal number: one below zero would be zero to a thread that flushes subnormal numbers.
  static T just_below(T x) {
    constexpr T kTiny = std::numeric_limits<T>::min();
    return x <= -kTiny || x > kTiny ? std::nextafter(x, -std::numeric_limits<T>::infinity())
                                    : -kTiny;
  }

  const Problem& problem_;
  const TileKernels<T>& kernels_;
  Relation wanted_;
  T max_similarity_;
  std::vector<int64_t> anchors_;
  Nominator nominator_;
  Reservoirs<T> kept_;
  AlignedArray<T> packed_;  // [tiles, D, tile_anchors]
  AlignedArray<T> panel_;   // [D, tile_keys]
  std::vector<T> limit_;    // [tiles * tile_anchors]
  // The id that all anchors of a tile have, or kSeveral. [tiles]
  std::vector<int64_t> only_video_;
  std::vector<int64_t> only_patient_;
};

}  // namespace usucl::cpu
