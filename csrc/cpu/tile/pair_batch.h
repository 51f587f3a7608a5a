// Scores single pairs that lie anywhere, as many at a time as a register has lanes.
#pragma once

#include "../../core/similarity.h"
#include "rows.h"
#include "tile.h"

namespace usucl::cpu {

// Label: what the caller needs to know about a pair once its similarity is computed.
template <typename T, typename Label>
class PairBatch {
 public:
  PairBatch(const TileKernels<T>& kernels, const Matrix& anchors)
      : kernels_(kernels), anchors_(anchors) {}

  // Calls use(label, similarity) for the pairs added so far once the batch is full or their keys'
  // dtype changes; flush does so for the rest.
  template <typename Use>
  void add(int64_t anchor, const Matrix& keys, int64_t row, const Label& label, const Use& use) {
    if (count_ > 0 && keys.dtype != key_dtype_) flush(use);
    key_dtype_ = keys.dtype;
    anchor_rows_[count_] = row_of(anchors_, anchor);
    key_rows_[count_] = row_of(keys, row);
    labels_[count_++] = label;
    if (count_ == kernels_.pairs) flush(use);
  }

  template <typename Use>
  void flush(const Use& use) {
    if (count_ == 0) return;
    for (int p = count_; p < kernels_.pairs; ++p) {
      anchor_rows_[p] = anchor_rows_[0];
      key_rows_[p] = key_rows_[0];
    }
    T similarity[kMaxPairs];
    kernels_.score_pairs(anchor_rows_, anchors_.dtype, key_rows_, key_dtype_, anchors_.dim,
                         similarity);
    const int count = count_;
    count_ = 0;
    for (int p = 0; p < count; ++p) use(labels_[p], canonical(similarity[p]));
  }

 private:
  const TileKernels<T>& kernels_;
  const Matrix& anchors_;
  DType key_dtype_ = DType::kFloat32;
  int count_ = 0;
  const void* anchor_rows_[kMaxPairs];
  const void* key_rows_[kMaxPairs];
  Label labels_[kMaxPairs];
};

}  // namespace usucl::cpu
