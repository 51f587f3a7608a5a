// The schemas of all operators; they are declared nowhere else.
//
// N anchors, R positives per anchor, M keys in all blocks, D dimensions. `inputs` are the arrays of
// a call in the order of core/inputs.h, absent ones as empty tensors; `ranks` are intra_k,
// intra_skip, cross_k and cross_skip; `reduction` is 0 for none, 1 for mean, 2 for sum.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(usucl, m) {
  m.def(
      "select_negatives(Tensor[] inputs, int[] ranks, float max_similarity) -> ("
      "Tensor intra_index, "       // [N, intra_k] int64
      "Tensor intra_similarity, "  // [N, intra_k]
      "Tensor cross_index, "       // [N, cross_k] int64
      "Tensor cross_similarity)"   // [N, cross_k]
  );
  m.def(
      "hard_negative_nce("
      "Tensor[] inputs, int[] ranks, float max_similarity, int reduction, "
      "bool anchors_need_gradient"
      ") -> ("
      "Tensor loss, "  // [N] or []
      "Tensor intra_index, Tensor intra_similarity, Tensor cross_index, Tensor cross_similarity, "
      "Tensor anchor_gradient, "  // [N, D] d loss_i / d q_i, or [0, D] if not needed
      "Tensor weights)"           // [N (R + intra_k + cross_k + 2)], see Weights
  );
  m.def(
      "similarities("
      "Tensor anchors, "  // [N, D]
      "Tensor keys, "     // [M, D]
      "Tensor index"      // [N, C] int64; outside 0 .. M-1: no key
      ") -> Tensor"       // [N, C], -infinity if there is no key
  );
  // first_key and num_keys name the key ranges whose gradients are wanted.
  m.def(
      "hard_negative_nce_backward("
      "Tensor grad_loss, "  // [N] or []
      "int reduction, "
      "Tensor anchors, "  // [N, D]
      "Tensor anchor_gradient, Tensor weights, Tensor intra_index, Tensor cross_index, "
      "SymInt num_positives, SymInt[] first_key, SymInt[] num_keys"
      ") -> ("
      "Tensor grad_anchors, "       // [N, D], or [0, D] if the forward had no gradient
      "Tensor grad_positives, "     // [N, R, D]
      "Tensor grad_temperatures, "  // [2]
      "Tensor[] grad_keys)"         // [num_keys_b, D]
  );
}
