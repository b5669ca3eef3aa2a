#include "model/files/rounded_weights.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "data/base/error.h"
#include "data/base/verified_file.h"
#include "model/files/safetensors.h"

namespace routescope::model {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSource = "rounded_from_sha256";
constexpr std::int64_t kPiece = std::int64_t{1} << 18;

}  // namespace

data::ManifestEntry write_rounded_weights(const fs::path& from, const data::ManifestEntry& expected,
                                          const fs::path& to) {
  data::verify_entry(from.parent_path(), expected);
  const SafetensorsReader reader(from);
  std::vector<SafetensorsItem> items;
  for (const SafetensorsEntry& entry : reader.entries())
    items.push_back({entry.name, entry.shape, {}, kernels::DType::bf16});
  std::map<std::string, std::string> metadata = reader.metadata();
  metadata[kSource] = expected.sha256;

  data::VerifiedFile out(to);
  const std::string header = safetensors_header(items, metadata);
  out.append(header.data(), header.size());
  std::vector<float> values;
  for (const SafetensorsEntry& entry : reader.entries()) {
    const auto size = static_cast<std::int64_t>((entry.end - entry.begin) / kernels::size_of(entry.dtype));
    for (std::int64_t first = 0; first < size; first += kPiece) {
      values.resize(static_cast<std::size_t>(std::min(kPiece, size - first)));
      const kernels::Tensor piece(values.data(), kernels::DType::f32, kernels::Device::cpu, {std::ssize(values)});
      reader.read_elements(entry.name, first, piece);
      // From here on bf16 has infinity alone.
      const auto bad = std::ranges::find_if(values, [](float value) { return !(std::fabs(value) < 0x1.FFp127F); });
      if (bad != values.end())
        throw data::Error("{}: {}: element {}: found {}, expected a number that bf16 holds", from.string(), entry.name,
                          first + (bad - values.begin()), *bad);
      stream_elements(piece, kernels::DType::bf16,
                      [&out](const void* data, std::size_t bytes) { out.append(data, bytes); });
    }
  }
  return out.finish();
}

std::string rounded_from(const fs::path& file) {
  const SafetensorsReader reader(file);
  const auto found = reader.metadata().find(kSource);
  return found == reader.metadata().end() ? "" : found->second;
}

}  // namespace routescope::model
