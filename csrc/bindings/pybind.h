// pybind11, either installed or bundled with torch. The bundled one cannot be included where
// TORCH_TARGET_VERSION is set, so files that include this header include nothing from torch.
#pragma once

#undef TORCH_TARGET_VERSION

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
