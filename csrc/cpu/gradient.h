// The backward pass: sums over the selected pairs, the only shape a gradient of the loss has.
#pragma once

#include "../core/results.h"

namespace usucl::cpu {

// Gradients of the anchors, the positives and the temperatures; of those that are not null.
template <typename T>
void hard_negative_nce_backward(const BackwardArguments<T>& arguments,
                                const BackwardArrays<T>& out);

// The gradient of a range of keys; its sums are in the order of the anchors whatever the number of
// threads.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted);

}  // namespace usucl::cpu
