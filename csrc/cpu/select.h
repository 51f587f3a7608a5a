// The hardest valid negatives of every anchor, on the CPU.
#pragma once

#include "../core/problem.h"

namespace usucl::cpu {

// Where the selection goes; -1 and -infinity where there are fewer keys than asked for.
template <typename T>
struct SelectionArrays {
  int64_t* intra_index;  // [N, intra.k]
  T* intra_similarity;   // [N, intra.k]
  int64_t* cross_index;  // [N, cross.k]
  T* cross_similarity;   // [N, cross.k]
};

// excluded [N], or null: anchors that select nothing. Never forms the N x M matrix: extra memory
// is O(N (D + depth)) and what a video join needs.
template <typename T>
void select_negatives(const Problem& problem, const bool* excluded,
                      const SelectionArrays<T>& selection);

// Similarity of one anchor [D], already upcast, with `count` rows of a matrix. similarity [count]
template <typename T>
void score_rows(const T* anchor, const Matrix& matrix, int64_t first_row, int64_t count,
                T* similarity);

}  // namespace usucl::cpu
