// Sums over the selected pairs: the only shape a gradient of the loss has.
#pragma once

#include "../results.h"

namespace usucl::cpu {

// The sum is in the order of the anchors whatever the number of threads.
template <typename T>
void key_gradient(const BackwardArguments<T>& arguments, const KeyGradient<T>& wanted);

}  // namespace usucl::cpu
