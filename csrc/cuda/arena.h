// The memory of a call, cut from a few pieces: asking PyTorch's allocator costs as much host time
// as a launch.
#pragma once

#include <vector>

#include "../core/divide.h"
#include "kernels.h"

namespace usucl::cuda {

class Arena : public Memory {
 public:
  // Where pieces come from and go back to. allocate() never returns null; it throws.
  struct Source {
    void* (*allocate)(int64_t bytes);
    void (*release)(void* piece);
  };

  Arena(Source source, cudaStream_t stream) : source_(source), stream_(stream) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  ~Arena() override {
    for (void* piece : pieces_) source_.release(piece);
  }

  void* allocate(int64_t bytes) override {
    bytes = aligned(bytes);
    if (bytes > kSlab / 2) return new_piece(bytes);
    if (bytes > work_.left) work_ = {new_piece(kSlab), kSlab};
    return work_.take(bytes);
  }

  void* allocate_zeros(int64_t bytes) override {
    bytes = aligned(bytes);
    if (bytes > kZeroSlab / 2) return cleared(bytes);
    if (bytes > zeros_.left) zeros_ = {cleared(kZeroSlab), kZeroSlab};
    return zeros_.take(bytes);
  }

 private:
  static constexpr int64_t kAlignment = 256;  // like PyTorch's allocator and cudaMalloc
  static constexpr int64_t kSlab = int64_t{16} << 20;
  static constexpr int64_t kZeroSlab = int64_t{1} << 20;

  struct Slab {
    void* next;
    int64_t left;

    void* take(int64_t bytes) {
      void* taken = next;
      next = static_cast<unsigned char*>(next) + bytes;
      left -= bytes;
      return taken;
    }
  };

  // Empty arrays need an address too: to the kernels, a null pointer means absence.
  static int64_t aligned(int64_t bytes) {
    return round_up(std::max<int64_t>(bytes, 1), kAlignment);
  }

  void* new_piece(int64_t bytes) {
    pieces_.reserve(pieces_.size() + 1);  // may throw, so it comes before the piece exists
    pieces_.push_back(source_.allocate(bytes));
    return pieces_.back();
  }

  void* cleared(int64_t bytes) {
    void* zeros = allocate(bytes);
    cudaMemsetAsync(zeros, 0, static_cast<size_t>(bytes), stream_);
    return zeros;
  }

  Source source_;
  cudaStream_t stream_;
  std::vector<void*> pieces_;
  Slab work_{};
  Slab zeros_{};
};

}  // namespace usucl::cuda
