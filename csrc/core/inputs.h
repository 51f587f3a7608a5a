// A call as both boundaries, PyTorch's operators and plain addresses, hand it over: numbers, and
// the arrays that it reads, in order.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "problem.h"
#include "results.h"

namespace usucl {

enum class Reduction : int64_t { kNone, kMean, kSum };

// What a call asks for, apart from its arrays.
struct Options {
  Ranks intra;
  Ranks cross;
  double max_similarity;  // +infinity: no limit
  Reduction reduction;
};

// DType with the same numbers, plus the type of ids and indices.
enum class ElementType : int32_t { kFloat32, kFloat64, kBFloat16, kFloat16, kInt64 };

inline const char* name_of(ElementType type) {
  constexpr const char* kNames[] = {"float32", "float64", "bfloat16", "float16", "int64"};
  return kNames[static_cast<int>(type)];
}

template <typename T>
constexpr ElementType element_type_of() {
  if (std::is_same_v<T, int64_t>) return ElementType::kInt64;
  return std::is_same_v<T, double> ? ElementType::kFloat64 : ElementType::kFloat32;
}

// An absent array has no elements.
struct Array {
  const void* data;
  ElementType type;
  int64_t count;
  int64_t device = -1;  // PyTorch's index; -1: the CPU

  DType dtype() const { return static_cast<DType>(type); }  // for embeddings only
};

// Everything is computed in float64 as soon as one embedding is float64.
inline bool in_double(const std::vector<Array>& arrays) {
  return std::any_of(arrays.begin(), arrays.end(),
                     [](const Array& array) { return array.type == ElementType::kFloat64; });
}

// Takes the arrays in order and checks what every kernel relies on.
class ArrayReader {
 public:
  explicit ArrayReader(const std::vector<Array>& arrays) : arrays_(arrays) {}

  bool at_end() const { return next_ == arrays_.size(); }

  const Array& peek(size_t ahead = 0) const {
    if (next_ + ahead >= arrays_.size()) throw std::runtime_error("inputs must be complete");
    return arrays_[next_ + ahead];
  }

  // [count], or null if the array is absent.
  template <typename T>
  const T* optional(const char* name, int64_t count) {
    const Array& array = next(name);
    if (array.count == 0) return nullptr;
    check_type(name, array, element_type_of<T>());
    check_count(name, array, count);
    return static_cast<const T*>(array.data);
  }

  template <typename T>
  const T* required(const char* name, int64_t count) {
    check_count(name, peek(), count);
    return optional<T>(name, count);
  }

  // [rows, dim]
  Matrix matrix(const char* name, int64_t rows, int64_t dim) {
    const Array& array = next(name);
    if (array.type == ElementType::kInt64) check_type(name, array, ElementType::kFloat32);
    check_count(name, array, rows * dim);
    return {array.data, array.dtype(), rows, dim};
  }

  Frames frames(const char* name, int64_t dim) {
    const int64_t rows = peek(1).count;  // the number of video ids
    const Matrix embedding = matrix(name, rows, dim);
    const auto* video = required<int64_t>("video", rows);
    const auto* time = required<float>("time", rows);
    return {embedding, video, time, optional<int64_t>("patient", rows)};
  }

 private:
  // Arrays must share a device: a kernel would use an address of one device on another.
  const Array& next(const char* name) {
    const Array& array = peek();
    ++next_;
    if (array.count > 0 && array.device != arrays_[0].device) {
      const auto name_of = [](int64_t device) {
        return device < 0 ? std::string("cpu") : "cuda:" + std::to_string(device);
      };
      throw std::runtime_error(std::string(name) + " must be on the device of the anchors, " +
                               name_of(arrays_[0].device) + ", got " + name_of(array.device));
    }
    return array;
  }

  static void check_type(const char* name, const Array& array, ElementType type) {
    if (array.type != type) {
      throw std::runtime_error(std::string(name) + " must be " + name_of(type) + ", got " +
                               name_of(array.type));
    }
  }

  static void check_count(const char* name, const Array& array, int64_t count) {
    if (array.count != count) {
      throw std::runtime_error(std::string(name) + " must have " + std::to_string(count) +
                               " values, got " + std::to_string(array.count));
    }
  }

  const std::vector<Array>& arrays_;
  size_t next_ = 0;
};

// The problem and the other inputs of the loss, from arrays in this order: embedding, video, time
// and patient of the anchors; window, positives, positive_weights, margin, temperature,
// soft_nn_temperature; then embedding, video, time and patient of every block.
// usucl_ext/_problem.py writes them.
template <typename T>
struct Inputs {
  std::vector<Frames> blocks;
  Problem problem;
  LossArguments<T> loss;  // all null if only a selection is wanted

  Inputs(const Inputs&) = delete;

  Inputs(const std::vector<Array>& arrays, int64_t dim, const Options& options) {
    check(options);
    ArrayReader reader(arrays);
    const Frames anchors = reader.frames("anchors", dim);
    const int64_t rows = anchors.embedding.rows;

    const bool window_per_anchor = reader.peek().count == 2 * rows;
    const auto* windows = reader.optional<float>("window", window_per_anchor ? 2 * rows : 2);

    loss.num_positives = rows == 0 ? 1 : reader.peek().count / (rows * dim);
    loss.positives = reader.matrix("positives", rows * loss.num_positives, dim);
    loss.positive_weights = reader.optional<T>("positive_weights", rows * loss.num_positives);
    loss.margin_per_anchor = reader.peek().count == rows;
    loss.margin = reader.optional<T>("margin", loss.margin_per_anchor ? rows : 1);
    loss.temperature = reader.optional<T>("temperature", 1);
    loss.soft_nn_temperature = reader.optional<T>("soft_nn_temperature", 1);

    blocks.reserve(arrays.size() / 4);
    while (!reader.at_end()) {
      blocks.push_back(reader.frames("keys", dim));
      const Frames& block = blocks.back();
      if (rows > 0 && block.embedding.rows > 0 &&
          (block.patient == nullptr) != (anchors.patient == nullptr)) {
        throw std::runtime_error("patient must be given for anchors and every block, or for none");
      }
    }
    problem = {anchors,       blocks.data(),         static_cast<int64_t>(blocks.size()),
               windows,       window_per_anchor,     options.intra,
               options.cross, options.max_similarity};
  }

 private:
  static void check(const Options& options) {
    for (const Ranks& ranks : {options.intra, options.cross}) {
      if (ranks.k < 0 || ranks.skip < 0) throw std::runtime_error("k and skip must be >= 0");
    }
  }
};

// The derivatives of the rows' losses with respect to everything but the anchors lie in one array:
// [N, R] for the similarities of the positives, [N, intra_k] and [N, cross_k] for those of the
// negatives, and [N, 2] for the temperatures.
template <typename T>
struct Weights {
  T* positive;
  T* intra;
  T* cross;
  T* temperature;

  Weights(T* all, int64_t rows, int64_t num_positives, int64_t intra_k, int64_t cross_k)
      : positive(all),
        intra(positive + rows * num_positives),
        cross(intra + rows * intra_k),
        temperature(cross + rows * cross_k) {}

  static int64_t count(int64_t rows, int64_t num_positives, int64_t intra_k, int64_t cross_k) {
    return rows * (num_positives + intra_k + cross_k + 2);
  }
};

}  // namespace usucl
