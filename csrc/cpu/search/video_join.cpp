#include "video_join.h"

#include <algorithm>

#include "../../core/divide.h"
#include "../parallel.h"

namespace usucl::cpu {
namespace {

constexpr int64_t kKeysPerChunk = 1 << 14;

struct Match {
  int32_t slot;
  uint32_t index;
};

}  // namespace

AnchorVideos::AnchorVideos(const Frames& anchors, const bool* excluded) {
  const int64_t rows = anchors.embedding.rows;
  uint64_t places = 2;
  shift_ = 63;
  for (; places < 2 * static_cast<uint64_t>(rows); places *= 2) --shift_;
  mask_ = places - 1;
  table_.assign(places, {0, -1});
  for (int64_t i = 0; i < rows; ++i) {
    if (anchors.is_empty(i) || (excluded != nullptr && excluded[i])) continue;
    const int64_t id = anchors.video[i];
    uint64_t place = place_of(id);
    while (table_[place].slot >= 0 && table_[place].id != id) place = (place + 1) & mask_;
    Entry& entry = table_[place];
    if (entry.slot < 0) {
      entry = {id, static_cast<int32_t>(anchors_.size())};
      anchors_.emplace_back();
    }
    anchors_[entry.slot].push_back(i);
  }
}

KeysByVideo join(const AnchorVideos& videos, const Keys& keys, int64_t begin, int64_t end) {
  const int64_t chunks = ceil_divide(end - begin, kKeysPerChunk);
  std::vector<std::vector<Match>> matches(chunks);
  parallel_for(chunks, 4, [&](int64_t first_chunk, int64_t last_chunk) {
    for (int64_t c = first_chunk; c < last_chunk; ++c) {
      const int64_t from = begin + c * kKeysPerChunk;
      keys.for_each_block(
          from, std::min(end, from + kKeysPerChunk),
          [&](const Frames& block, int64_t block_begin, int64_t first, int64_t last) {
            for (int64_t row = first; row < last; ++row) {
              const int32_t slot = videos.slot(block.video[row]);
              if (slot < 0) continue;
              matches[c].push_back({slot, static_cast<uint32_t>(block_begin + row)});
            }
          });
    }
  });

  KeysByVideo result;
  result.first.assign(videos.count() + 1, 0);
  for (const auto& chunk : matches) {
    for (const Match& match : chunk) ++result.first[match.slot + 1];
  }
  for (int64_t s = 0; s < videos.count(); ++s) result.first[s + 1] += result.first[s];
  std::vector<int64_t> next(result.first.begin(), result.first.end() - 1);
  result.index.resize(result.first.back());
  for (const auto& chunk : matches) {
    for (const Match& match : chunk) result.index[next[match.slot]++] = match.index;
  }
  return result;
}

}  // namespace usucl::cpu
