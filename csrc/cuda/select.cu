// The hardest valid negatives of every anchor: one pass over all keys.
//
// A thread block takes kAnchors anchors and goes through the keys in order of index, kThreads at a
// time: one key a thread, staged in shared memory. A key above the threshold of the anchor's list
// is appended. Once a list could overflow with the next tile, all lists are sorted and cut to
// their depth, which raises their thresholds. Keys come in order, so one that only equals its
// threshold ranks below all that are kept. Which keys survive a tile depends on the thresholds at
// its start alone, and the order is total: the result does not depend on the order of appending.
#include "../core/relation.h"
#include "../core/similarity.h"
#include "block.h"
#include "kernels.h"

namespace usucl::cuda {
namespace {

constexpr int kAnchors = 4;           // that share a tile of keys
constexpr int kLists = 2 * kAnchors;  // an intra-video and a cross-video list for each
constexpr int kDims = 32;             // of the embeddings, staged at a time
constexpr int kBlocksPerLaunch = 32;  // their table is under the 4 KiB of kernel arguments

struct BlockTable {
  Frames block[kBlocksPerLaunch];
};

__global__ void write_table(BlockTable blocks, int count, Frames* table) {
  for (int b = threadIdx.x; b < count; b += kThreads) table[b] = blocks.block[b];
}

template <typename T>
struct Shared {
  T anchor[kAnchors][kDims];
  T key[kThreads][kDims + 1];  // + 1: a column lies in 32 different banks
  FrameTag tag[kAnchors];
  Window window[kAnchors];
  T threshold[kLists];
  int count[kLists];
};

// One thread block's work.
template <typename T>
class Selection {
 public:
  __device__ Selection(const Problem& problem, const bool* excluded, const SelectionPlan& plan,
                       Candidate<T>* lists, const SelectionArrays<T>& out, Shared<T>& shared)
      : problem_(problem),
        excluded_(excluded),
        plan_(plan),
        lists_(lists),
        out_(out),
        shared_(shared),
        max_similarity_(static_cast<T>(problem.max_similarity)) {}

  // Anchors first .. first + kAnchors - 1.
  __device__ void run(int64_t first) {
    start(first);
    int64_t first_index = 0;
    for (int64_t b = 0; b < problem_.num_blocks; ++b) {
      const Frames& keys = problem_.blocks[b];
      for (int64_t row = 0; row < keys.embedding.rows; row += kThreads) {
        T similarity[kAnchors] = {};
        score_tile(first, keys.embedding, row, similarity);
        append_survivors(keys, row + threadIdx.x, first_index + row + threadIdx.x, similarity);
        __syncthreads();
        if (may_overflow()) keep_best();
      }
      first_index += keys.embedding.rows;
    }
    keep_best();
    for (int a = 0; a < kAnchors && first + a < problem_.anchors.embedding.rows; ++a) {
      write_ranks(2 * a, problem_.intra, first + a, out_.intra_index, out_.intra_similarity);
      write_ranks(2 * a + 1, problem_.cross, first + a, out_.cross_index, out_.cross_similarity);
    }
    __syncthreads();
  }

 private:
  __device__ int64_t depth(int list) const {
    return list % 2 == 0 ? plan_.intra_depth : plan_.cross_depth;
  }

  __device__ void start(int64_t first) {
    for (int a = threadIdx.x; a < kAnchors; a += kThreads) {
      const int64_t anchor = first + a;
      const bool there = anchor < problem_.anchors.embedding.rows;
      shared_.tag[a] = there ? problem_.anchors.tag(anchor) : FrameTag{-1, 0, -1};
      shared_.window[a] = problem_.window(there ? anchor : 0);
      if (there && excluded_ != nullptr && excluded_[anchor]) shared_.tag[a].video = -1;
    }
    for (int list = threadIdx.x; list < kLists; list += kThreads) {
      shared_.threshold[list] = static_cast<T>(depth(list) > 0 ? -INFINITY : INFINITY);
      shared_.count[list] = 0;
    }
    __syncthreads();
  }

  // similarity [kAnchors]: of this thread's key, row + threadIdx.x, with each anchor: the chain of
  // core/similarity.h, its elements staged kDims at a time.
  __device__ void score_tile(int64_t first, const Matrix& keys, int64_t row, T* similarity) {
    for (int64_t start = 0; start < keys.dim; start += kDims) {
      const int width = static_cast<int>(keys.dim - start < kDims ? keys.dim - start : kDims);
      for (int i = threadIdx.x; i < kAnchors * kDims; i += kThreads) {
        stage(problem_.anchors.embedding, first + i / kDims, start, i % kDims,
              shared_.anchor[i / kDims]);
      }
      for (int i = threadIdx.x; i < kThreads * kDims; i += kThreads) {
        stage(keys, row + i / kDims, start, i % kDims, shared_.key[i / kDims]);
      }
      __syncthreads();
      for (int d = 0; d < width; ++d) {
        const T key = shared_.key[threadIdx.x][d];
        for (int a = 0; a < kAnchors; ++a) {
          similarity[a] = fused_multiply_add(shared_.anchor[a][d], key, similarity[a]);
        }
      }
      __syncthreads();
    }
  }

  static __device__ void stage(const Matrix& matrix, int64_t row, int64_t start, int column,
                               T* staged) {
    const bool there = row < matrix.rows && start + column < matrix.dim;
    staged[column] = there ? element<T>(matrix, row, start + column) : T(0);
  }

  __device__ void append_survivors(const Frames& keys, int64_t row, int64_t index,
                                   const T* similarity) {
    if (row >= keys.embedding.rows) return;
    const FrameTag tag = keys.tag(row);
    for (int a = 0; a < kAnchors; ++a) {
      const Relation found = relation(shared_.tag[a], tag, shared_.window[a]);
      if (found == Relation::kIgnored) continue;
      if (!valid_similarity(similarity[a], max_similarity_)) continue;
      const int list = found == Relation::kIntraVideo ? 2 * a : 2 * a + 1;
      const Candidate<T> candidate{canonical(similarity[a]), index};
      if (!(candidate.similarity > shared_.threshold[list])) continue;
      lists_[list * plan_.capacity + atomicAdd(&shared_.count[list], 1)] = candidate;
    }
  }

  // A tile adds at most kThreads candidates to a list.
  __device__ bool may_overflow() const {
    bool any = false;
    for (int list = 0; list < kLists; ++list) {
      any |= shared_.count[list] + kThreads > plan_.capacity;
    }
    return any;
  }

  // Sorts every list and drops what is beyond its depth.
  __device__ void keep_best() {
    int longest = 0;
    for (int list = 0; list < kLists; ++list) longest = max(longest, shared_.count[list]);
    sort_lists(
        lists_, kLists, plan_.capacity, [&](int list) { return shared_.count[list]; }, longest,
        ranks_before<T>);
    for (int list = threadIdx.x; list < kLists; list += kThreads) {
      const int64_t kept = depth(list);
      if (kept == 0 || shared_.count[list] < kept) continue;
      shared_.count[list] = static_cast<int>(kept);
      shared_.threshold[list] = lists_[list * plan_.capacity + kept - 1].similarity;
    }
    __syncthreads();
  }

  __device__ void write_ranks(int list, const Ranks& ranks, int64_t anchor, int64_t* index,
                              T* similarity) const {
    for (int64_t rank = threadIdx.x; rank < ranks.k; rank += kThreads) {
      const int64_t place = ranks.skip + rank;
      const bool taken = place < shared_.count[list];
      const Candidate<T> none{static_cast<T>(-INFINITY), -1};
      const Candidate<T> found = taken ? lists_[list * plan_.capacity + place] : none;
      index[anchor * ranks.k + rank] = found.index;
      similarity[anchor * ranks.k + rank] = found.similarity;
    }
  }

  const Problem& problem_;
  const bool* excluded_;
  const SelectionPlan& plan_;
  Candidate<T>* lists_;  // [kLists, capacity]
  const SelectionArrays<T>& out_;
  Shared<T>& shared_;
  T max_similarity_;
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    select_kernel(Problem problem, const bool* excluded, SelectionPlan plan, Candidate<T>* lists,
                  SelectionArrays<T> out) {
  __shared__ Shared<T> shared;
  Candidate<T>* own = lists + blockIdx.x * kLists * plan.capacity;
  Selection<T> selection(problem, excluded, plan, own, out, shared);
  const int64_t rows = problem.anchors.embedding.rows;
  for (int64_t first = int64_t{blockIdx.x} * kAnchors; first < rows;
       first += int64_t{gridDim.x} * kAnchors) {
    selection.run(first);
  }
}

}  // namespace

Problem on_device(const Problem& problem, Frames* table, cudaStream_t stream) {
  for (int64_t b = 0; b < problem.num_blocks; b += kBlocksPerLaunch) {
    BlockTable blocks = {};
    const int64_t count = std::min<int64_t>(problem.num_blocks - b, kBlocksPerLaunch);
    std::copy_n(problem.blocks + b, count, blocks.block);
    launch(write_table, 1, stream, blocks, static_cast<int>(count), table + b);
  }
  Problem moved = problem;
  moved.blocks = table;
  return moved;
}

int64_t SelectionPlan::num_candidates() const { return grid * kLists * capacity; }

SelectionPlan plan_selection(const Problem& problem) {
  constexpr int64_t kMaxSelectionGrid = 2048;  // above what any GPU runs at once: bounds the lists
  int64_t num_keys = 0;
  for (int64_t b = 0; b < problem.num_blocks; ++b) num_keys += problem.blocks[b].embedding.rows;
  const int64_t intra = std::min(problem.intra.depth(), num_keys);
  const int64_t cross = std::min(problem.cross.depth(), num_keys);
  const int64_t grid =
      std::min(grid_for(problem.anchors.embedding.rows, kAnchors), kMaxSelectionGrid);
  // One tile more than must fit, so that lists are not sorted after every tile.
  return {grid, std::max(intra, cross) + 2 * kThreads, intra, cross};
}

template <typename T>
void select_negatives(const Problem& problem, const bool* excluded, const SelectionPlan& plan,
                      Candidate<T>* lists, const SelectionArrays<T>& selection,
                      cudaStream_t stream) {
  launch(select_kernel<T>, plan.grid, stream, problem, excluded, plan, lists, selection);
}

template void select_negatives(const Problem&, const bool*, const SelectionPlan&, Candidate<float>*,
                               const SelectionArrays<float>&, cudaStream_t);
template void select_negatives(const Problem&, const bool*, const SelectionPlan&,
                               Candidate<double>*, const SelectionArrays<double>&, cudaStream_t);

}  // namespace usucl::cuda
