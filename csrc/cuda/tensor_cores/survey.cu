// What the dense pass computes before it multiplies: norms, anchors as tensor cores take them,
// tiles of keys, and which keys repeat the previous one.
#include "../../core/relation.h"
#include "dense.h"

namespace usucl::cuda {
namespace {

__device__ inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Rounds to nearest, ties to even, at the lowest of `dropped` bits.
__device__ inline uint32_t round_bits(uint32_t bits, int dropped) {
  return bits + (1u << (dropped - 1)) - 1 + (bits >> dropped & 1u);
}

// A finite value as one of these elements; for TF32 a float32 with what TF32 keeps.
template <typename Elements>
__device__ uint32_t as_element(float value) {
  const uint32_t bits = bits_of(value);
  if (Elements::kDType == DType::kBFloat16) return round_bits(bits, 16) >> 16;
  if (Elements::kDType == DType::kFloat32) return round_bits(bits, 13) & ~0x1fffu;
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude < 0x38800000u) {  // subnormal: a multiple of 2^-24
    const float units = fabsf(value) * 0x1p24f;
    return sign | static_cast<uint32_t>(rintf(units));
  }
  return sign | ((round_bits(magnitude, 13) >> 13) - (112u << 10));
}

// Rounds the norm up, given the sum of squares of `dim` elements.
__device__ inline float norm_from(float squares, int64_t dim) {
  // An element whose square is lost is below 2^-74.
  const float norm = sqrtf(squares) + sqrtf(static_cast<float>(dim)) * 0x1p-70f;
  return norm * (1.0f + static_cast<float>(dim + 64) * 0x1p-23f);
}

// The norm of a row, rounded up, by one warp; NaN if an element is not finite.
__device__ USUCL_OUT_OF_LINE float norm_of(const Matrix& matrix, int64_t row) {
  float squares = 0;
  bool finite = true;
  for (int64_t d = lane(); d < matrix.dim; d += 32) {
    const float value = element<float>(matrix, row, d);
    finite &= value - value == 0.0f;
    squares = fused_multiply_add(value, value, squares);
  }
  const bool all_finite = __all_sync(kWholeWarp, finite) != 0;
  return all_finite ? norm_from(WarpTeam::sum(squares), matrix.dim) : NAN;
}

// Whether a row equals the previous row bit for bit, by one warp.
__device__ USUCL_OUT_OF_LINE bool repeats(const Matrix& matrix, int64_t row) {
  for (int64_t start = 0; start < matrix.dim; start += 32) {
    const int64_t d = start + lane();
    const bool same = d >= matrix.dim || bits_of(element<float>(matrix, row, d)) ==
                                             bits_of(element<float>(matrix, row - 1, d));
    if (!__all_sync(kWholeWarp, same)) return false;  // most rows differ early
  }
  return true;
}

// One warp per anchor, including rows beyond the last one, which are zeros.
template <typename Elements>
__global__ void __launch_bounds__(kThreads, kEasyBlocks)
    pack_kernel(const __grid_constant__ Frames anchors,
                const __grid_constant__ DenseOperands operands, Piece* packed, float* anchor_norm) {
  constexpr int kOfWord = sizeof(uint32_t) / Elements::kBytes;
  const int64_t rows = int64_t{operands.anchor_tiles} * kTileAnchors;
  const int64_t words = int64_t{operands.chunks} * kChunkBytes / sizeof(uint32_t);
  const int64_t step = int64_t{gridDim.x} * (kThreads / 32);
  const Matrix& matrix = anchors.embedding;
  for (int64_t i = blockIdx.x * (kThreads / 32) + warp(); i < rows; i += step) {
    float norm = NAN;
    if (i < matrix.rows) norm = norm_of(matrix, i);
    const bool searches = norm >= 0 && !anchors.is_empty(i);  // false for NaN
    auto* out = reinterpret_cast<uint32_t*>(packed) + i * words;
    for (int64_t w = lane(); w < words; w += 32) {
      uint32_t word = 0;
      for (int h = 0; h < kOfWord; ++h) {
        const int64_t d = w * kOfWord + h;
        if (searches && d < matrix.dim) {
          word |= as_element<Elements>(element<float>(matrix, i, d)) << (16 * h);
        }
      }
      out[w] = word;
    }
    if (lane() == 0 && i < matrix.rows) anchor_norm[i] = searches ? norm : -1.0f;
  }
}

// What a warp finds out about 32 keys.
struct Surveyed {
  uint32_t repeats;  // one bit per key
  float norm;        // the greatest among keys that are not empty slots
};

// The sum of the squares of a piece's elements.
template <typename Elements>
__device__ float squares_of(const Piece& piece) {
  float sum = 0;
  const auto add = [&](float value) { sum = fused_multiply_add(value, value, sum); };
#pragma unroll
  for (int w = 0; w < kPieceBytes / 4; ++w) {
    const uint32_t word = piece.word[w];
    if (Elements::kDType == DType::kFloat32) {
      add(float_from_bits(word));
    } else if (Elements::kDType == DType::kBFloat16) {
      add(float_from_bits(word << 16));
      add(float_from_bits(word & 0xffff0000u));
    } else {
      add(upcast(Float16{static_cast<uint16_t>(word)}));
      add(upcast(Float16{static_cast<uint16_t>(word >> 16)}));
    }
  }
  return sum;
}

__device__ inline bool equal(const Piece& a, const Piece& b) {
  bool same = true;
#pragma unroll
  for (int w = 0; w < kPieceBytes / 4; ++w) same &= a.word[w] == b.word[w];
  return same;
}

// For aligned rows: takes as many rows at once as the warp has lanes for their pieces, with several
// steps in flight.
template <typename Elements>
__device__ Surveyed survey_pieces(const Matrix& keys, int64_t first, uint32_t counting) {
  constexpr int kSteps = 4;
  const int pieces = static_cast<int>(keys.dim * Elements::kBytes / kPieceBytes);
  int lanes = kSteps;  // per row
  while (lanes < pieces && lanes < 32) lanes *= 2;
  const int at_once = 32 / lanes, own = lane() / lanes;
  const auto* data = static_cast<const Piece*>(keys.data);
  const auto piece_of = [&](int64_t row, int p) {  // any piece if there is none
    row = row < 0 ? 0 : row < keys.rows ? row : keys.rows - 1;
    return data[row * pieces + (p < pieces ? p : pieces - 1)];
  };
  const unsigned own_lanes = (lanes == 32 ? ~0u : (1u << lanes) - 1) << (own * lanes);
  uint32_t repeats = 0;
  float most = 0;  // the greatest sum of squares
  for (int step = 0; step < lanes; step += kSteps) {
    bool same[kSteps];
    float squares[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      same[s] = true;
      squares[s] = 0;
    }
    for (int p = lane() % lanes; p < round_up(pieces, lanes); p += lanes) {
      Piece piece[kSteps], before[kSteps];
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        const int64_t row = first + (step + s) * at_once + own;
        piece[s] = piece_of(row, p);
        before[s] = piece_of(row - 1, p);
      }
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        same[s] &= equal(piece[s], before[s]);
        if (p < pieces) squares[s] += squares_of<Elements>(piece[s]);
      }
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int key = (step + s) * at_once + own;
      for (int bits = lanes / 2; bits > 0; bits /= 2) {
        squares[s] += __shfl_xor_sync(kWholeWarp, squares[s], bits);
      }
      const unsigned equals = __ballot_sync(kWholeWarp, same[s]);
      const bool has_before = first + key > 0 && first + key < keys.rows;
      if (has_before && (equals & own_lanes) == own_lanes) repeats |= 1u << key;
      // A sum that is not finite counts as the greatest, including NaN.
      if ((counting >> key & 1u) != 0 && !(squares[s] <= most)) most = squares[s];
    }
  }
  Surveyed found{__reduce_or_sync(kWholeWarp, repeats), 0};
  if (!__any_sync(kWholeWarp, !(most < INFINITY))) {
    found.norm = norm_from(WarpTeam::greatest(most), keys.dim);
    if (counting == 0) found.norm = 0;
    return found;
  }
  // An element or its square is not finite: each key is checked by itself.
  for (int key = 0; key < 32; ++key) {
    if ((counting >> key & 1u) != 0) found.norm = fmaxf(found.norm, norm_of(keys, first + key));
  }
  return found;
}

__device__ Surveyed survey_elements(const Matrix& keys, int64_t first, uint32_t counting) {
  Surveyed found{0, 0};
  for (int key = 0; key < 32 && first + key < keys.rows; ++key) {
    if ((counting >> key & 1u) != 0) found.norm = fmaxf(found.norm, norm_of(keys, first + key));
    if (first + key > 0 && repeats(keys, first + key)) found.repeats |= 1u << key;
  }
  return found;
}

// Groups of neighbours of which no two share a video or a known patient, by a warp: one bit for the
// last of each group. An anchor may exclude one key for its video and one for its patient, so a
// group of two keys leaves one, or a group of three if there are patients.
__device__ uint32_t last_of_groups(const FrameTag& tag, bool with_patients) {
  const int size = with_patients ? 3 : 2;
  const auto differs = [&](unsigned distance) {
    const FrameTag other{__shfl_up_sync(kWholeWarp, tag.video, distance), 0,
                         __shfl_up_sync(kWholeWarp, tag.patient, distance)};
    return crosses(tag, other);
  };
  const bool from_first = differs(1), from_second = differs(2);
  const bool two_before = __shfl_up_sync(kWholeWarp, from_first ? 1 : 0, 1u) != 0;
  const bool apart = from_first && (size == 2 || (from_second && two_before));
  return __ballot_sync(kWholeWarp, apart && lane() % size == size - 1);
}

struct SurveyShared {
  float norm[KeyBits::kWords];
  int32_t one_video[KeyBits::kWords];
};

// One thread block per tile, one warp per 32 of its keys. Norms are not negative, so their bits
// have the same order.
template <typename Elements>
__global__ void __launch_bounds__(kThreads, kHeavyBlocks<float>)
    survey_kernel(const __grid_constant__ DeviceProblem device,
                  const __grid_constant__ DenseOperands operands, uint32_t* greatest) {
  SurveyShared& shared = shared_memory<SurveyShared>();
  const Problem problem = device.view();
  for (int32_t number = static_cast<int32_t>(blockIdx.x); number < operands.tiles;
       number += static_cast<int32_t>(gridDim.x)) {
    int64_t row = int64_t{number} * kTileKeys, first_index = 0;
    int32_t number_of_block = 0;
    const Frames* block = problem.blocks;
    for (;; first_index += block++->embedding.rows) {
      const Matrix& keys = block->embedding;
      if (keys.dtype != Elements::kDType) continue;
      const int64_t padded = round_up(keys.rows, kTileKeys);
      if (row < padded) break;
      row -= padded;
      if (padded > 0) ++number_of_block;
    }
    const Matrix& keys = block->embedding;
    const int64_t first = row + warp() * 32;
    const bool there = first + lane() < keys.rows;
    const FrameTag tag = there ? block->tag(first + lane()) : FrameTag{-1, 0, -1};
    operands.tag[int64_t{number} * kTileKeys + warp() * 32 + lane()] = ShortTag::of_key(tag);
    const uint32_t counting = __ballot_sync(kWholeWarp, !tag.is_empty());
    const bool by_pieces = keys.dim * Elements::kBytes % kPieceBytes == 0 &&
                           reinterpret_cast<uintptr_t>(keys.data) % kPieceBytes == 0;
    const Surveyed found = by_pieces ? survey_pieces<Elements>(keys, first, counting)
                                     : survey_elements(keys, first, counting);
    const uint32_t groups = last_of_groups(tag, problem.anchors.patient != nullptr);
    const bool one_video = !there || same_video(tag, block->tag(row));
    const bool all_one = __all_sync(kWholeWarp, one_video) != 0;
    if (lane() == 0) {
      operands.bits[number].repeats[warp()] = found.repeats;
      operands.bits[number].last_of_group[warp()] = groups;
      shared.norm[warp()] = found.norm;
      shared.one_video[warp()] = all_one ? 1 : 0;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      float norm = 0;
      bool all = true;
      for (int w = 0; w < KeyBits::kWords; ++w) {
        norm = fmaxf(norm, shared.norm[w]);
        all &= shared.one_video[w] != 0;
      }
      if (norm > 0 && load_relaxed(greatest) < bits_of(norm)) atomicMax(greatest, bits_of(norm));
      const int64_t left = keys.rows - row;
      operands.tile[number] = {
          static_cast<const unsigned char*>(keys.data) + keys.offset(row, 0) * Elements::kBytes,
          !all                   ? KeyTile::kSeveralVideos
          : block->is_empty(row) ? KeyTile::kPassedOver
                                 : block->video[row],
          static_cast<uint32_t>(first_index + row),
          static_cast<int32_t>(left < kTileKeys ? left : kTileKeys),
          static_cast<int32_t>(row),
          number_of_block};
    }
    __syncthreads();
  }
}

}  // namespace

void pack_anchors(DType elements, const Frames& anchors, const DenseOperands& operands,
                  Piece* packed, float* anchor_norm, const Call& call) {
  const int64_t rows = int64_t{operands.anchor_tiles} * kTileAnchors;
  with_elements(elements, [&](auto type) {
    launch<pack_kernel<decltype(type)>>(grid_for(rows, kThreads / 32, call), kThreads, 0,
                                        call.stream, anchors, operands, packed, anchor_norm);
  });
}

void survey_keys(DType elements, const DeviceProblem& device, const DenseOperands& operands,
                 uint32_t* greatest, const Call& call) {
  with_elements(elements, [&](auto type) {
    launch<survey_kernel<decltype(type)>>(grid_for(operands.tiles, 1, call), kThreads,
                                          sizeof(SurveyShared), call.stream, device, operands,
                                          greatest);
  });
}

}  // namespace usucl::cuda
