// IEEE binary16, which HDF5 stores and C++20 does not have.
#pragma once

#include <cstdint>

namespace routescope::data::hdf5 {

/// A stored binary16. Arithmetic is done in float.
struct half {
  std::uint16_t bits = 0;
};
/// Rounded to nearest even; overflow becomes infinity, NaN stays NaN.
half to_half(float value);
float to_float(half value);

}  // namespace routescope::data::hdf5
