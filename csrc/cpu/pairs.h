// Similarities of given pairs, such as another index's candidates.
#pragma once

#include "../core/results.h"

namespace usucl::cpu {

template <typename T>
void similarities(const ScoredPairs<T>& pairs);

}  // namespace usucl::cpu
