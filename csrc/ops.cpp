// Every operator's schema; the only place where they are declared.
//
// N anchors, R positives each, M keys in all blocks, D dimensions. Lists hold one tensor a key
// block; key_patient is empty where there are no patient ids.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(usucl, m) {
  m.def(
      "select_negatives("
      "Tensor anchors, "        // [N, D]
      "Tensor video, "          // [N] int64
      "Tensor time, "           // [N] float32
      "Tensor? patient, "       // [N] int64
      "Tensor[] keys, "         // [M_b, D]
      "Tensor[] key_video, "    // [M_b] int64
      "Tensor[] key_time, "     // [M_b] float32
      "Tensor[] key_patient, "  // [M_b] int64
      "Tensor? window, "        // [1, 2] or [N, 2] float32
      "int intra_k, int cross_k, int intra_skip, int cross_skip, float? max_similarity"
      ") -> ("
      "Tensor intra_index, "       // [N, intra_k] int64
      "Tensor intra_similarity, "  // [N, intra_k]
      "Tensor cross_index, "       // [N, cross_k] int64
      "Tensor cross_similarity)"   // [N, cross_k]
  );
  m.def(
      "hard_negative_nce("
      "Tensor anchors, Tensor video, Tensor time, Tensor? patient, "
      "Tensor[] keys, Tensor[] key_video, Tensor[] key_time, Tensor[] key_patient, "
      "Tensor? window, "
      "int intra_k, int cross_k, int intra_skip, int cross_skip, float? max_similarity, "
      "Tensor positives, "             // [N, R, D]
      "Tensor temperature, "           // []
      "Tensor? soft_nn_temperature, "  // []
      "int reduction, "                // 0 none, 1 mean, 2 sum
      "bool anchors_need_gradient"
      ") -> ("
      "Tensor loss, "  // [N] or []
      "Tensor intra_index, Tensor intra_similarity, Tensor cross_index, Tensor cross_similarity, "
      "Tensor anchor_gradient, "      // [N, D] d loss_i / d q_i, or [0, D] where not needed
      "Tensor positive_weight, "      // [N, R] d loss_i / d s_p
      "Tensor intra_weight, "         // [N, intra_k] d loss_i / d s_ij
      "Tensor cross_weight, "         // [N, cross_k] d loss_i / d s_ij
      "Tensor temperature_gradient)"  // [N, 2] d loss_i / d temperature, soft_nn_temperature
  );
  m.def(
      "similarities("
      "Tensor anchors, "  // [N, D]
      "Tensor keys, "     // [M, D]
      "Tensor index"      // [N, C] int64; outside of 0 .. M-1: no key
      ") -> Tensor"       // [N, C], -infinity where there is no key
  );
  // first_key and num_keys name the key ranges whose gradients are wanted.
  m.def(
      "hard_negative_nce_backward("
      "Tensor grad_loss, "  // [N] or []
      "int reduction, "
      "Tensor anchors, "  // [N, D]
      "Tensor anchor_gradient, Tensor positive_weight, "
      "Tensor intra_index, Tensor intra_weight, Tensor cross_index, Tensor cross_weight, "
      "Tensor temperature_gradient, "
      "SymInt[] first_key, SymInt[] num_keys"
      ") -> ("
      "Tensor grad_anchors, "       // [N, D], or [0, D] where the forward had no gradient
      "Tensor grad_positives, "     // [N, R, D]
      "Tensor grad_temperatures, "  // [2]
      "Tensor[] grad_keys)"         // [num_keys_b, D]
  );
}
