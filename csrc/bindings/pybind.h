// pybind11, installed or from inside torch. The latter refuses to be included where
// TORCH_TARGET_VERSION is set; files that include this include nothing of torch.
#pragma once

#undef TORCH_TARGET_VERSION

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
