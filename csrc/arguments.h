// The operators' tensors as the plain problem of csrc/core; checked a second time, after Python.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/problem.h"

namespace usucl {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

enum class Reduction : int64_t { kNone, kMean, kSum };

inline DType dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      STD_TORCH_CHECK(false, name, " must be float32, float64, bfloat16 or float16");
  }
}

inline std::string device_name(int64_t index) {
  return index < 0 ? "cpu" : "cuda:" + std::to_string(index);
}

// A kernel would read the address of one device on another.
inline void check_device(const Tensor& tensor, const Tensor& like, const char* name) {
  const int64_t expected = like.get_device_index(), found = tensor.get_device_index();
  STD_TORCH_CHECK(found == expected, name, " must be on the device of the anchors, ",
                  device_name(expected), ", got ", device_name(found));
}

inline Matrix matrix_of(const Tensor& tensor, int64_t dim, const Tensor& like, const char* name) {
  check_device(tensor, like, name);
  STD_TORCH_CHECK(tensor.dim() >= 2 && tensor.size(-1) == dim, name, " must have D = ", dim,
                  " columns, got ", tensor.size(-1));
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
  return {tensor.const_data_ptr(), dtype_of(tensor, name), tensor.numel() / dim, dim};
}

template <typename T>
const T* column_of(const Tensor& tensor, int64_t rows, ScalarType type, const Tensor& like,
                   const char* name) {
  check_device(tensor, like, name);
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " has another dtype than its schema says");
  STD_TORCH_CHECK(tensor.numel() == rows, name, " must have ", rows, " values, got ",
                  tensor.numel());
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
  return static_cast<const T*>(tensor.const_data_ptr());
}

inline Frames frames_of(const Tensor& embedding, const Tensor& video, const Tensor& time,
                        const Tensor* patient, int64_t dim, const Tensor& like, const char* name) {
  const Matrix matrix = matrix_of(embedding, dim, like, name);
  return {matrix, column_of<int64_t>(video, matrix.rows, ScalarType::Long, like, "video"),
          column_of<float>(time, matrix.rows, ScalarType::Float, like, "time"),
          patient == nullptr
              ? nullptr
              : column_of<int64_t>(*patient, matrix.rows, ScalarType::Long, like, "patient")};
}

// The arguments that select_negatives and hard_negative_nce share, and the problem they make.
class SelectionArguments {
 public:
  SelectionArguments(const Tensor& anchors, const Tensor& video, const Tensor& time,
                     const std::optional<Tensor>& patient, const std::vector<Tensor>& keys,
                     const std::vector<Tensor>& key_video, const std::vector<Tensor>& key_time,
                     const std::vector<Tensor>& key_patient, const std::optional<Tensor>& window,
                     int64_t intra_k, int64_t cross_k, int64_t intra_skip, int64_t cross_skip,
                     std::optional<double> max_similarity) {
    STD_TORCH_CHECK(anchors.dim() == 2 && anchors.size(1) >= 1, "anchors must have shape [N, D]");
    STD_TORCH_CHECK(intra_k >= 0 && cross_k >= 0 && intra_skip >= 0 && cross_skip >= 0,
                    "k and skip must be >= 0");
    STD_TORCH_CHECK(key_video.size() == keys.size() && key_time.size() == keys.size(),
                    "every key block needs video and time");
    STD_TORCH_CHECK(key_patient.size() == (patient ? keys.size() : 0),
                    "patient must be given for anchors and every key block, or for none");
    const int64_t rows = anchors.size(0), dim = anchors.size(1);
    double_precision_ = anchors.scalar_type() == ScalarType::Double;
    for (size_t b = 0; b < keys.size(); ++b) {
      double_precision_ |= keys[b].scalar_type() == ScalarType::Double;
      blocks_.push_back(frames_of(keys[b], key_video[b], key_time[b],
                                  patient ? &key_patient[b] : nullptr, dim, anchors, "keys"));
    }
    const float* windows = nullptr;
    bool window_per_anchor = false;
    if (window) {
      window_per_anchor = window->dim() == 2 && window->size(0) == rows;
      windows = column_of<float>(*window, window_per_anchor ? 2 * rows : 2, ScalarType::Float,
                                 anchors, "window");
    }
    problem_ = {
        frames_of(anchors, video, time, patient ? &*patient : nullptr, dim, anchors, "anchors"),
        blocks_.data(),
        static_cast<int64_t>(blocks_.size()),
        windows,
        window_per_anchor,
        {intra_k, intra_skip},
        {cross_k, cross_skip},
        max_similarity.value_or(std::numeric_limits<double>::infinity())};
  }

  const Problem& problem() const { return problem_; }

  // Whether any embedding is float64, and so everything is computed in float64.
  bool double_precision() const { return double_precision_; }

 private:
  std::vector<Frames> blocks_;
  Problem problem_;
  bool double_precision_;
};

inline Tensor new_empty(const Tensor& like, std::vector<int64_t> shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

template <typename T>
constexpr ScalarType scalar_type_of() {
  return sizeof(T) == sizeof(double) ? ScalarType::Double : ScalarType::Float;
}

template <typename T>
T* data_of(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace usucl
