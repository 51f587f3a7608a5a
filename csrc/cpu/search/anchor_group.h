// A few packed anchors and the hardest keys that each has met so far.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "../../core/divide.h"
#include "../../core/relation.h"
#include "../../core/similarity.h"
#include "../tile/pair_batch.h"
#include "../tile/tile.h"
#include "aligned.h"
#include "key_panel.h"
#include "nominator.h"
#include "nominees.h"
#include "reservoir.h"

namespace usucl::cpu {

// Prefetches the rows of a panel little by little while the processor computes: the hardware
// prefetcher cannot predict rows that lie apart.
class Prefetch {
 public:
  // calls: the calls of some() over which the rows are spread.
  Prefetch(const KeyPanel* panel, int64_t calls) : calls_(calls) {
    if (panel == nullptr) return;
    const Matrix& matrix = panel->block->embedding;
    panel_ = panel;
    lines_per_row_ = ceil_divide(matrix.dim * bytes_of(matrix.dtype), kCacheLine);
    lines_ = lines_per_row_ * panel->count;
  }

  // Fetches the share of `calls` calls.
  void some(int64_t calls) {
    called_ += calls;
    for (const int64_t end = std::min(lines_, lines_ * called_ / calls_); done_ < end; ++done_) {
      const int64_t j = done_ / lines_per_row_;
      const void* row = row_of(panel_->block->embedding, panel_->row[j]);
      __builtin_prefetch(static_cast<const char*>(row) + done_ % lines_per_row_ * kCacheLine, 0, 2);
    }
  }

 private:
  const KeyPanel* panel_ = nullptr;
  int64_t calls_, called_ = 0;
  int64_t lines_per_row_ = 1, lines_ = 0, done_ = 0;
};

// Scores its anchors against one panel of keys after another. Only similarities above the anchor's
// limit leave the registers; mask and exact order are evaluated on those alone.
template <typename T>
class AnchorGroup {
 public:
  using RankKey = typename Rank<T>::Key;

  // wanted: the relation of the keys to keep, `depth` of them per anchor. num_keys: an upper bound
  // on how many of `keys` will be scored.
  AnchorGroup(const Problem& problem, const Keys& keys, const TileKernels<T>& kernels,
              Relation wanted, int64_t depth, std::vector<int64_t> anchors, int64_t num_keys)
      : problem_(problem),
        keys_(keys),
        kernels_(kernels),
        wanted_(wanted),
        anchors_(std::move(anchors)),
        nominator_(problem.anchors.embedding, anchors_, kernels, num_keys,
                   wanted == Relation::kCrossVideo ? keys.count() : num_keys, depth),
        kept_(num_anchors(), depth, num_keys, kernels.tile_keys) {
    const int64_t height = kernels.tile_anchors, dim = problem.anchors.embedding.dim;
    const int64_t tiles = ceil_divide(num_anchors(), height);
    packed_ = aligned_array<T>(tiles * height * dim);
    panel_ = aligned_array<T>(kernels.tile_keys * dim);
    // The last tile's missing anchors never hit.
    limit_.assign(tiles * height, std::numeric_limits<T>::infinity());
    std::fill_n(limit_.begin(), num_anchors(), -std::numeric_limits<T>::infinity());
    for (int64_t t = 0; t < tiles; ++t) pack_tile(t);
    if (nominator_.enabled()) {
      nominees_ = std::make_unique<Nominees>(num_anchors(), depth, kernels.tile_keys);
      reached_.assign(num_anchors(), -std::numeric_limits<T>::infinity());
    }
  }

  int64_t num_anchors() const { return static_cast<int64_t>(anchors_.size()); }
  int64_t anchor(int64_t row) const { return anchors_[row]; }

  // Keys come in ascending order, panel by panel, until the next call of begin_pass; each key comes
  // only once in all passes.
  void begin_pass() {
    for (int64_t row = 0; row < num_anchors(); ++row) set_limit(row, -1);
  }

  // next: the panel to be scored after this one, prefetched meanwhile; or null.
  void score(const KeyPanel& keys, const KeyPanel* next) {
    if (keys.all_slots_empty()) return;
    const void* rows[kMaxTileKeys];
    for (int j = 0; j < keys.count; ++j) rows[j] = row_of(keys.block->embedding, keys.row[j]);
    const CommonIds common = wanted_ == Relation::kCrossVideo
                                 ? keys.common_ids()
                                 : CommonIds{CommonIds::kNone, CommonIds::kNone};
    Prefetch prefetch(next, static_cast<int64_t>(common_.size()));
    int64_t nominated = 0;
    if constexpr (std::is_same_v<T, float>) {
      if (nominator_.load(rows, keys.block->embedding.dtype, keys.count, limit_)) {
        nominated = nominate_panel(keys, common, &prefetch);
      }
    }
    if (nominated < num_anchors()) score_panel(keys, common, rows, nominated, &prefetch);
  }

  // To be called after the last panel: decides what was nominated.
  void finish() {
    if constexpr (std::is_same_v<T, float>) {
      for (int64_t row = 0; nominator_.enabled() && row < num_anchors(); ++row) {
        drop_beaten(row);
        decide(row);
      }
    }
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
    common_.push_back({common_id(anchors.video, &anchors_[first], count),
                       common_id(anchors.patient, &anchors_[first], count)});
  }

  // Scores by the chain, beginning with an anchor that is the first of a tile.
  void score_panel(const KeyPanel& keys, const CommonIds& common, const void* const* rows,
                   int64_t first_anchor, Prefetch* prefetch) {
    const int64_t height = kernels_.tile_anchors, dim = problem_.anchors.embedding.dim;
    // The unused columns of a partial panel could hold anything, and subnormal numbers are slow.
    if (keys.count < kernels_.tile_keys) std::fill_n(panel_.get(), kernels_.tile_keys * dim, T(0));
    kernels_.pack_keys(rows, keys.block->embedding.dtype, keys.count, dim, panel_.get());
    alignas(64) T similarity[kMaxTileAnchors * kMaxTileKeys];
    uint64_t hits[kMaxTileAnchors];
    const uint64_t columns = (uint64_t{1} << keys.count) - 1;
    for (int64_t first = first_anchor; first < num_anchors(); first += height) {
      prefetch->some(1);
      if (never_cross(common_[first / height], common)) continue;
      if (!kernels_.score_tile(packed_.get() + first * dim, panel_.get(), dim, &limit_[first],
                               similarity, hits)) {
        continue;
      }
      for (int64_t i = 0; i < height; ++i) {
        const uint64_t hit = hits[i] & columns;
        if (hit != 0) keep(first + i, keys, hit, similarity + i * kernels_.tile_keys);
      }
    }
  }

  // Nominees with the wanted relation wait for the chain. Returns how many anchors are done; it
  // stops early when so many keys are nominated that the chain would be faster.
  int64_t nominate_panel(const KeyPanel& keys, const CommonIds& common, Prefetch* prefetch) {
    const Nominator::Session session(nominator_);
    const int64_t height = nominator_.height(), parts = height / kernels_.tile_anchors;
    alignas(64) float dot_product[kMaxNominatedAnchors * kMaxTileKeys];
    uint64_t hits[kMaxNominatedAnchors];
    const uint64_t columns = (uint64_t{1} << keys.count) - 1;
    int64_t nominated = 0;
    for (int64_t first = 0; first < num_anchors(); first += height) {
      const int64_t end = std::min(first + height, num_anchors());
      const auto* const tiles = &common_[first / kernels_.tile_anchors];
      const auto count = ceil_divide(end - first, kernels_.tile_anchors);
      const auto excluded = [&](const CommonIds& tile) { return never_cross(tile, common); };
      prefetch->some(parts);
      if (std::all_of(tiles, tiles + count, excluded)) continue;
      if (!nominator_.nominate(first / height, dot_product, hits)) continue;
      for (int64_t i = 0; i < end - first; ++i) {
        nominated += __builtin_popcountll(hits[i] &= columns);
      }
      if (!nominator_.worthwhile(nominated, end * keys.count)) return first;
      for (int64_t row = first; row < end; ++row) {
        const uint64_t hit = hits[row - first];
        if (hit != 0) await(row, keys, hit, dot_product + (row - first) * kernels_.tile_keys);
      }
    }
    nominator_.succeeded();
    return num_anchors();
  }

  void await(int64_t row, const KeyPanel& keys, uint64_t hits, const float* dot_product) {
    const FrameTag tag = problem_.anchors.tag(anchors_[row]);
    const Window window = problem_.window(anchors_[row]);
    const float margin = nominator_.margin(row);
    const T greatest = problem_.greatest_valid<T>(anchors_[row]);
    bool unsure = false;
    for (; hits != 0; hits &= hits - 1) {
      const int j = __builtin_ctzll(hits);
      if (relation(tag, keys.block->tag(keys.row[j]), window) != wanted_) continue;
      nominees_->add(row, dot_product[j] - margin, 2 * margin, keys.index(j));
      unsure |= dot_product[j] + margin >= greatest;
    }
    // Candidates that may turn out to be invalid must not beat others.
    if (unsure) return decide(row);
    if (!nominees_->full(row)) return;
    drop_beaten(row);
    if (nominees_->crowded(row)) decide(row);
  }

  void drop_beaten(int64_t row) {
    scratch_.clear();
    kept_.append(row, &scratch_);
    const float reached = nominees_->drop_beaten(row, &scratch_);
    reached_[row] = std::max<T>(reached_[row], just_below(reached));
    limit_[row] = std::max(limit_[row], reached_[row]);
  }

  // Scores the nominees of an anchor by the chain, several at a time.
  void decide(int64_t row) {
    PairBatch<T, int64_t> batch(kernels_, problem_.anchors.embedding);
    const T greatest = problem_.greatest_valid<T>(anchors_[row]);
    const auto rank = [&](int64_t index, T similarity) {
      if (!valid_similarity(similarity, greatest)) return;
      const auto key = Rank<T>::key(similarity, index);
      if (key <= kept_.least(row)) return;
      kept_.add(row, key);
      kept_.trim(row);
    };
    nominees_->take(row, [&](int64_t index) {
      const KeyPlace key = keys_.place_of(index);
      batch.add(anchors_[row], key.block->embedding, key.row, index, rank);
    });
    batch.flush(rank);
    set_limit(row, -1);
  }

  void keep(int64_t row, const KeyPanel& keys, uint64_t hits, const T* similarity) {
    const int64_t anchor = anchors_[row];
    const FrameTag tag = problem_.anchors.tag(anchor);
    const Window window = problem_.window(anchor);
    const T greatest = problem_.greatest_valid<T>(anchor);
    const auto least = kept_.least(row);
    for (; hits != 0; hits &= hits - 1) {
      const int j = __builtin_ctzll(hits);
      if (!valid_similarity(similarity[j], greatest)) continue;
      if (relation(tag, keys.block->tag(keys.row[j]), window) != wanted_) continue;
      const auto key = Rank<T>::key(canonical(similarity[j]), keys.index(j));
      if (key > least) kept_.add(row, key);
    }
    kept_.trim(row);
    set_limit(row, keys.index(keys.count - 1));
  }

  // `last`: keys of this pass up to this index have been scored. A more similar key beats the least
  // of a full row; an equal key does so only if keys of a lower index may still come.
  void set_limit(int64_t row, int64_t last) {
    const auto least = kept_.least(row);
    if (least != Rank<T>::kNone) {
      const T similarity = Rank<T>::similarity(least);
      limit_[row] = Rank<T>::index(least) <= last ? similarity : just_below(similarity);
    }
    if (nominator_.enabled()) limit_[row] = std::max(limit_[row], reached_[row]);
  }

  // The result is normal: threads that flush subnormal numbers would read one below zero as zero.
  static T just_below(T x) {
    constexpr T kTiny = std::numeric_limits<T>::min();
    return x <= -kTiny || x > kTiny ? std::nextafter(x, -std::numeric_limits<T>::infinity())
                                    : -kTiny;
  }

  const Problem& problem_;
  const Keys& keys_;
  const TileKernels<T>& kernels_;
  Relation wanted_;
  std::vector<int64_t> anchors_;
  Nominator nominator_;
  Reservoirs<T> kept_;
  std::unique_ptr<Nominees> nominees_;  // null without nomination
  std::vector<T> reached_;  // [anchors] just below what nominees and kept_ reach together
  std::vector<RankKey> scratch_;
  AlignedArray<T> packed_;         // [tiles, D, tile_anchors]
  AlignedArray<T> panel_;          // [D, tile_keys]
  std::vector<T> limit_;           // [tiles * tile_anchors]
  std::vector<CommonIds> common_;  // [tiles]
};

}  // namespace usucl::cpu
