// The intra-video candidates: a join of anchors and keys on the video id, then every anchor with
// the keys of its own video only. Those are few, whatever the size of the bank. All of this runs
// concurrently with the search for the cross-video candidates.
#include "../core/relation.h"
#include "block.h"
#include "groups.h"
#include "passes.h"

namespace usucl::cuda {
namespace {

using Video = unsigned long long;  // 64 bits for atomicCAS
// The table's entry for a video; zero means an empty place.
USUCL_HD Video entry_of(int64_t id) { return static_cast<Video>(id) + 1; }

// A hash table of the anchors' videos, at least half empty.
struct VideoTable {
  Video* video;  // [mask + 1]
  Video mask;

  // The high half of a product with the golden ratio mixes consecutive and strided ids.
  USUCL_HD Video first_place(int64_t id) const {
    return static_cast<Video>(id) * 0x9e3779b97f4a7c15u >> 32 & mask;
  }

  // The place of the video, or -1.
  __device__ int64_t find(int64_t id) const {
    if (id < 0) return -1;
    for (Video place = first_place(id);; place = (place + 1) & mask) {
      const Video found = video[place];
      if (found == entry_of(id)) return static_cast<int64_t>(place);
      if (found == 0) return -1;
    }
  }
};

__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    insert_videos(const __grid_constant__ Frames anchors, VideoTable table) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < anchors.embedding.rows;
       i += int64_t{gridDim.x} * kThreads) {
    if (anchors.is_empty(i)) continue;
    const Video entry = entry_of(anchors.video[i]);
    Video place = table.first_place(anchors.video[i]);
    for (;; place = (place + 1) & table.mask) {
      const Video found = atomicCAS(&table.video[place], Video{0}, entry);
      if (found == 0 || found == entry) break;
    }
  }
}

// Keys and anchors grouped by the place of their video in the table. A group of anchors begins at a
// multiple of kTogether anchor places; the gaps between groups are zero.
struct Members {
  VideoTable table;
  int64_t num_keys;
  Count* total;   // [2]: places taken by keys and by anchors
  Count* begin;   // [2, places of the table]: of keys and of anchors
  Count* end;     // [2, places of the table]; a group's length at first
  Count* key;     // [M]
  Count* anchor;  // [kTogether * N], counted from 1

  static constexpr int kTogether = 8;  // anchors that share the keys of their video

  USUCL_HD int64_t slots() const { return static_cast<int64_t>(table.mask + 1); }

  // The place of an item or -1; items are the keys, then the anchors from num_keys on.
  __device__ int64_t slot_of(const Problem& problem, int64_t item) const {
    if (item >= num_keys) {
      const int64_t place = table.find(problem.anchors.video[item - num_keys]);
      return place < 0 ? -1 : slots() + place;
    }
    const KeyPlace key = place_of(problem.blocks, item);
    return table.find(key.block->video[key.row]);
  }
};

// Calls f(item) for all items, keys and anchors, of this thread.
template <typename Function>
__device__ void for_each_member(const Members& members, int64_t anchors, const Function& f) {
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
       item < members.num_keys + anchors; item += int64_t{gridDim.x} * kThreads) {
    f(item);
  }
}

__global__ void __launch_bounds__(kThreads)
    count_members(const __grid_constant__ DeviceProblem device,
                  const __grid_constant__ Members members) {
  const Problem problem = device.view();
  for_each_member(members, problem.anchors.embedding.rows, [&](int64_t item) {
    const int64_t slot = members.slot_of(problem, item);
    if (slot >= 0) atomicAdd(&members.end[slot], Count{1});
  });
}

__global__ void __launch_bounds__(kThreads) place_members(const __grid_constant__ Members members) {
  for (int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x; slot < 2 * members.slots();
       slot += int64_t{gridDim.x} * kThreads) {
    const int of_anchors = slot >= members.slots() ? 1 : 0;
    const Count unit = of_anchors != 0 ? Members::kTogether : 1;
    const Count length = round_up(members.end[slot], unit);
    const Count begin = length == 0 ? 0 : atomicAdd(members.total + of_anchors, length);
    members.begin[slot] = begin;
    members.end[slot] = begin;
  }
}

__global__ void __launch_bounds__(kThreads)
    fill_members(const __grid_constant__ DeviceProblem device,
                 const __grid_constant__ Members members) {
  const Problem problem = device.view();
  for_each_member(members, problem.anchors.embedding.rows, [&](int64_t item) {
    const int64_t slot = members.slot_of(problem, item);
    if (slot < 0) return;
    const Count at = atomicAdd(&members.end[slot], Count{1});
    if (item < members.num_keys) {
      members.key[at] = static_cast<Count>(item);
    } else {
      members.anchor[at] = static_cast<Count>(item - members.num_keys) + 1;
    }
  });
}

template <typename T>
struct IntraShared {
  static constexpr int kDims = 128;

  T value[kDims * Members::kTogether];
  int64_t row[Members::kTogether];  // or -1
  Candidate<T> worst[Members::kTogether];
  int count[Members::kTogether];
  Candidate<T> list[1];  // the other lists follow here, unless they are in device memory

  static int64_t bytes(int64_t capacity) {
    return static_cast<int64_t>(sizeof(IntraShared)) +
           Members::kTogether * capacity * static_cast<int64_t>(sizeof(Candidate<T>));
  }
};

// One thread block's work on some anchors of one video. Their lists [kTogether, capacity], each
// kept by one warp, are in shared or device memory.
template <typename T>
class IntraSearch {
 public:
  static constexpr int kTogether = Members::kTogether;

  __device__ IntraSearch(const Problem& problem, const Members& members, Candidate<T>* lists,
                         int64_t capacity, const CandidateLists<T>& kept, IntraShared<T>& shared)
      : problem_(problem),
        members_(members),
        lists_(lists),
        capacity_(capacity),
        kept_(kept),
        shared_(shared) {}

  // Searches for anchors kTogether * group and following.
  __device__ void run(int64_t group) {
    const int thread = static_cast<int>(threadIdx.x);
    const Count first_anchor = members_.anchor[group * kTogether];
    if (first_anchor == 0) return;
    __syncthreads();
    if (thread < kTogether) {
      shared_.row[thread] = static_cast<int64_t>(members_.anchor[group * kTogether + thread]) - 1;
      shared_.count[thread] = 0;
      shared_.worst[thread] = no_candidate<T>();
    }
    __syncthreads();
    const int64_t slot = members_.table.find(problem_.anchors.video[first_anchor - 1]);
    const Count end = members_.end[slot];
    bool staged = false;
    for (Count first = members_.begin[slot]; first < end; first += kThreads) {
      append(first + threadIdx.x, end, staged);
      staged = true;
      __syncthreads();
      for_each_list([&](int a) {
        // A tile adds at most kThreads candidates.
        if (shared_.count[a] + kThreads > capacity_) keep(a);
      });
      __syncthreads();
    }
    for_each_list([&](int a) {
      const int64_t row = shared_.row[a];
      if (row < 0) return;
      keep(a);
      write_padded<WarpTeam>(list(a), shared_.count[a], kept_.depth, kept_.of(row));
    });
  }

 private:
  // Calls f(a) for each list a of this warp.
  template <typename Function>
  __device__ void for_each_list(const Function& f) const {
    for (int a = warp(); a < kTogether; a += kThreads / 32) f(a);
  }

  __device__ Candidate<T>* list(int a) const { return lists_ + a * capacity_; }

  // Adds one key per thread.
  __device__ void append(Count item, Count end, bool staged) {
    const bool there = item < end;
    const int64_t index = there ? static_cast<int64_t>(members_.key[item]) : 0;
    const KeyPlace key = place_of(problem_.blocks, index);
    T sum[kTogether] = {};
    score(key, there, staged, sum);
    if (!there) return;
    const FrameTag tag = key.block->tag(key.row);
#pragma unroll
    for (int a = 0; a < kTogether; ++a) {
      const int64_t row = shared_.row[a];
      const Candidate<T> candidate{canonical(sum[a]), index};
      if (row < 0) continue;
      if (!valid_similarity(candidate.similarity, problem_.greatest_valid<T>(row))) continue;
      if (!ranks_before(candidate, shared_.worst[a])) continue;
      const Window window = problem_.window(row);
      if (relation(problem_.anchors.tag(row), tag, window) != Relation::kIntraVideo) continue;
      list(a)[atomicAdd(&shared_.count[a], 1)] = candidate;
    }
  }

  __device__ void score(const KeyPlace& key, bool there, bool staged, T (&sum)[kTogether]) {
    constexpr int kDims = IntraShared<T>::kDims;
    const Matrix& anchors = problem_.anchors.embedding;
    for (int64_t start = 0; start < anchors.dim; start += kDims) {
      const int64_t rest = anchors.dim - start;
      const int width = static_cast<int>(rest < kDims ? rest : kDims);
      if (!staged || anchors.dim > kDims) {
        __syncthreads();
        for (int e = static_cast<int>(threadIdx.x); e < width * kTogether; e += kThreads) {
          const int a = e / width, d = e % width;
          const int64_t row = shared_.row[a];
          shared_.value[d * kTogether + a] = row < 0 ? T(0) : element<T>(anchors, row, start + d);
        }
        __syncthreads();
      }
      if (there) {
        continue_chains(sum, shared_.value, key.block->embedding, key.row, start, width);
      }
    }
  }

  __device__ void keep(int a) {
    const int64_t kept =
        keep_best<WarpTeam>(list(a), shared_.count[a], kept_.depth, &shared_.worst[a]);
    // All lanes have read the old count before the barriers of the sort.
    if (lane() == 0) shared_.count[a] = static_cast<int>(kept);
    __syncwarp();
  }

  const Problem& problem_;
  const Members& members_;
  Candidate<T>* lists_;
  int64_t capacity_;
  const CandidateLists<T>& kept_;
  IntraShared<T>& shared_;
};

// lists: null if they are in shared memory.
template <typename T>
__global__ void __launch_bounds__(kThreads, kHeavyBlocks<T>)
    intra_kernel(const __grid_constant__ DeviceProblem device,
                 const __grid_constant__ Members members, Candidate<T>* lists, int64_t capacity,
                 const __grid_constant__ CandidateLists<T> kept) {
  IntraShared<T>& shared = shared_memory<IntraShared<T>>();
  const Problem problem = device.view();
  Candidate<T>* const own =
      lists == nullptr ? shared.list : lists + blockIdx.x * Members::kTogether * capacity;
  IntraSearch<T> search(problem, members, own, capacity, kept, shared);
  for (int64_t i = blockIdx.x; i < problem.anchors.embedding.rows; i += gridDim.x) {
    search.run(i);
    // Anchors without a video are in no group.
    if (problem.anchors.is_empty(i)) write_padded<BlockTeam>(own, 0, kept.depth, kept.of(i));
  }
}

Members new_members(const Problem& problem, int64_t keys, const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows;
  Video places = 2;
  while (places < 2 * static_cast<Video>(rows)) places *= 2;
  const auto slots = static_cast<int64_t>(places);
  Members members{};
  members.table = {call.memory.zeros<Video>(slots), places - 1};
  members.num_keys = keys;
  members.total = call.memory.zeros<Count>(2);
  members.begin = call.memory.array<Count>(2 * slots);
  members.end = call.memory.zeros<Count>(2 * slots);
  members.key = call.memory.array<Count>(keys);
  members.anchor = call.memory.zeros<Count>(rows * Members::kTogether);
  return members;
}

void group_members(const Members& members, const Problem& problem, const DeviceProblem& device,
                   cudaStream_t stream, const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows;
  launch<insert_videos>(grid_for(rows, kThreads, call), kThreads, 0, stream, problem.anchors,
                        members.table);
  const int64_t grid = grid_for(members.num_keys + rows, kThreads, call);
  launch<count_members>(grid, kThreads, 0, stream, device, members);
  launch<place_members>(grid_for(2 * members.slots(), kThreads, call), kThreads, 0, stream,
                        members);
  launch<fill_members>(grid, kThreads, 0, stream, device, members);
}

}  // namespace

template <typename T>
CandidateLists<T> intra_pass(const Problem& problem, const DeviceProblem& device,
                             const Call& call) {
  const int64_t rows = problem.anchors.embedding.rows, keys = problem.num_keys();
  const int64_t depth = problem.windows == nullptr ? 0 : problem.intra.depth(keys);
  if (depth == 0 || rows == 0) return {nullptr, 0, 0, nullptr};
  const Members members = new_members(problem, keys, call);
  constexpr int64_t kNearDepth = 64;
  const bool near = depth <= kNearDepth;
  // Room for more than `depth`, so that the list is not sorted after every tile.
  const int64_t capacity = depth + (near ? 1 : 2) * kThreads;
  const int64_t grid = grid_for(rows, 1, call);
  const CandidateLists<T> kept{call.memory.array<Candidate<T>>(rows * depth), 1, depth, nullptr};
  Candidate<T>* lists = nullptr;
  if (!near) lists = call.memory.array<Candidate<T>>(grid * Members::kTogether * capacity);
  // All memory is allocated before the fork: zeros are written on the call's own stream.
  const cudaStream_t stream = call.beside == nullptr ? call.stream : call.beside->fork();
  group_members(members, problem, device, stream, call);
  launch<intra_kernel<T>>(grid, kThreads, IntraShared<T>::bytes(near ? capacity : 0), stream,
                          device, members, lists, capacity, kept);
  return kept;
}

template CandidateLists<float> intra_pass(const Problem&, const DeviceProblem&, const Call&);
template CandidateLists<double> intra_pass(const Problem&, const DeviceProblem&, const Call&);

}  // namespace usucl::cuda
