// The intra-video candidates: a join of anchors and keys on the video id, then every anchor with
// the keys of its own video only. Those are few, whatever the size of the bank.
#include "../core/relation.h"
#include "block.h"
#include "groups.h"
#include "passes.h"

namespace usucl::cuda {
namespace {

using Video = unsigned long long;    // what atomicCAS takes in 64 bits
constexpr Video kEmpty = ~Video{0};  // no anchor has a negative video id in the table

// A hash table of the anchors' videos, half empty at least.
struct VideoTable {
  Video* video;  // [mask + 1]
  Video mask;

  // The high half of a product by the golden ratio mixes ids that are consecutive or strided.
  USUCL_HD Video first_place(int64_t id) const {
    return static_cast<Video>(id) * 0x9e3779b97f4a7c15u >> 32 & mask;
  }

  // Where the video is, or -1.
  __device__ int64_t find(int64_t id) const {
    if (id < 0) return -1;
    for (Video place = first_place(id);; place = (place + 1) & mask) {
      if (video[place] == static_cast<Video>(id)) return static_cast<int64_t>(place);
      if (video[place] == kEmpty) return -1;
    }
  }
};

__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    insert_videos(const int64_t* videos, int64_t rows, VideoTable table) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < rows;
       i += int64_t{gridDim.x} * kThreads) {
    if (videos[i] < 0) continue;
    const auto id = static_cast<Video>(videos[i]);
    Video place = table.first_place(videos[i]);
    for (;; place = (place + 1) & table.mask) {
      const Video found = atomicCAS(&table.video[place], kEmpty, id);
      if (found == kEmpty || found == id) break;
    }
  }
}

// The place of a key's video in the table.
struct PlaceOfKey {
  DeviceProblem device;
  VideoTable table;

  __device__ int64_t operator()(int64_t index) const {
    const Problem problem = device.view();
    const KeyPlace key = place_of(problem, index);
    return table.find(key.block->video[key.row]);
  }
};

template <typename T>
struct IntraShared {
  StagedAnchor<T> anchor;
  Candidate<T> worst;
  int count;
};

// One thread block's work; `list` [capacity] is in device memory.
template <typename T>
class IntraSearch {
 public:
  __device__ IntraSearch(const Problem& problem, const Groups& keys, Candidate<T>* list,
                         int64_t capacity, IntraShared<T>& shared)
      : problem_(problem), keys_(keys), list_(list), capacity_(capacity), shared_(shared) {}

  // The `depth` hardest keys of the anchor's video go to out [depth]. slot: of that video, or -1.
  __device__ void run(int64_t i, int64_t slot, int64_t depth, Candidate<T>* out) {
    __syncthreads();
    if (threadIdx.x == 0) {
      shared_.count = 0;
      shared_.worst = no_candidate<T>();
    }
    __syncthreads();
    const Count begin = slot < 0 ? 0 : keys_.begin[slot], end = slot < 0 ? 0 : keys_.end[slot];
    for (Count first = begin; first < end; first += kThreads) {
      append(i, first + threadIdx.x, end, first > begin);
      __syncthreads();
      // A tile adds at most kThreads candidates.
      if (shared_.count + kThreads > capacity_) keep(depth);
      __syncthreads();
    }
    keep(depth);
    write_padded<BlockTeam>(list_, shared_.count, depth, out);
  }

 private:
  __device__ void append(int64_t i, Count item, Count end, bool staged) {
    const int64_t index = item < end ? static_cast<int64_t>(keys_.item[item]) : 0;
    const KeyPlace key = place_of(problem_, index);
    const FrameTag tag = key.block->tag(key.row);
    const bool there = item < end && relation(problem_.anchors.tag(i), tag, problem_.window(i)) ==
                                         Relation::kIntraVideo;
    const Candidate<T> candidate{shared_.anchor.score(problem_.anchors.embedding, i,
                                                      key.block->embedding, key.row, there, staged),
                                 index};
    const T max_similarity = static_cast<T>(problem_.max_similarity);
    if (!there || !valid_similarity(candidate.similarity, max_similarity)) return;
    if (!ranks_before(candidate, shared_.worst)) return;
    list_[atomicAdd(&shared_.count, 1)] = candidate;
  }

  __device__ void keep(int64_t depth) {
    const int64_t kept = keep_best<BlockTeam>(list_, shared_.count, depth, &shared_.worst);
    // All have read the old count before the barriers of the sort.
    if (threadIdx.x == 0) shared_.count = static_cast<int>(kept);
    __syncthreads();
  }

  const Problem& problem_;
  const Groups& keys_;
  Candidate<T>* list_;
  int64_t capacity_;
  IntraShared<T>& shared_;
};

// One thread block an anchor.
template <typename T>
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    intra_kernel(const __grid_constant__ DeviceProblem device, VideoTable table, Groups keys,
                 Candidate<T>* lists, int64_t capacity, Kept<T> kept) {
  IntraShared<T>& shared = shared_memory<IntraShared<T>>();
  const Problem problem = device.view();
  IntraSearch<T> search(problem, keys, lists + blockIdx.x * capacity, capacity, shared);
  for (int64_t i = blockIdx.x; i < problem.anchors.embedding.rows; i += gridDim.x) {
    search.run(i, table.find(problem.anchors.video[i]), kept.depth, kept.of(i));
  }
}

VideoTable anchor_videos(const Frames& anchors, const Call& call) {
  const int64_t rows = anchors.embedding.rows;
  Video places = 2;
  while (places < 2 * static_cast<Video>(rows)) places *= 2;
  const VideoTable table{call.memory.array<Video>(static_cast<int64_t>(places)), places - 1};
  cudaMemsetAsync(table.video, 0xff, places * sizeof(Video), call.stream);
  launch<insert_videos>(grid_for(rows, kThreads, call), kThreads, 0, call.stream, anchors.video,
                        rows, table);
  return table;
}

}  // namespace

template <typename T>
Kept<T> intra_pass(const Problem& problem, const DeviceProblem& device, const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows, keys = num_keys(problem);
  const int64_t depth = problem.windows == nullptr ? 0 : kept_depth(problem.intra, keys);
  if (depth == 0 || rows == 0) return {nullptr, 0, 0, nullptr};
  const VideoTable table = anchor_videos(problem.anchors, call);
  const auto places = static_cast<int64_t>(table.mask + 1);
  const Groups groups = group(PlaceOfKey{device, table}, keys, places, call);
  // One tile more than must fit, so that the list is not sorted after every tile.
  const int64_t capacity = depth + 2 * kThreads;
  const int64_t grid = grid_for(rows, 1, call);
  const Kept<T> kept{call.memory.array<Candidate<T>>(rows * depth), 1, depth, nullptr};
  launch<intra_kernel<T>>(grid, kThreads, sizeof(IntraShared<T>), call.stream, device, table,
                          groups, call.memory.array<Candidate<T>>(grid * capacity), capacity, kept);
  return kept;
}

template Kept<float> intra_pass(const Problem&, const DeviceProblem&, const Call&);
template Kept<double> intra_pass(const Problem&, const DeviceProblem&, const Call&);

}  // namespace usucl::cuda
