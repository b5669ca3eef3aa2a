// Datasets as they are stored: values in the stored type, chunks as their filters left them, and their place in the
// file. Copies of these change no bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "data/hdf5/dataset.h"

namespace routescope::data::hdf5 {

std::int64_t element_bytes(const Dataset& data);
Shape chunk_shape(const Dataset& data);  // empty: not chunked
bool is_filtered(const Dataset& data);

/// Like Dataset::read_rows() and append(), in the stored type.
void read_row_bytes(const Dataset& data, std::int64_t begin, std::int64_t count, std::span<std::byte> out);
void append_row_bytes(Dataset& data, std::span<const std::byte> values, std::int64_t rows);

struct StoredChunk {
  std::int64_t address = 0, bytes = 0;
  std::uint32_t filter_mask = 0;  // a bit for each filter that was left out
};
/// The place of a chunk in the file. `first` are the coordinates of its first element. Takes a time proportional to the
/// number of chunks before it (HDF5 1.10). Throws Error for one that is not stored.
StoredChunk stored_chunk(const Dataset& data, const Shape& first);
std::vector<std::byte> read_chunk(const Dataset& data, const Shape& first, std::uint32_t* filter_mask = nullptr);
void write_chunk(Dataset& data, const Shape& first, std::span<const std::byte> bytes, std::uint32_t filter_mask);
/// The place of the values of a dataset that is not chunked. Throws Error.
std::int64_t file_address(const Dataset& data);

}  // namespace routescope::data::hdf5
