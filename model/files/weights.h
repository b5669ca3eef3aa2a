// The weights of a model directory: model.safetensors, or the shards that model.safetensors.index.json names.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/files/safetensors.h"

namespace routescope::model {

/// The text of an index: tensor -> file of the same directory. Throws Error, which names `where`, for any other text,
/// for one that lists no tensor, and for a file outside the directory.
std::map<std::string, std::string> parse_weight_index(const std::string& text, const std::string& where);

/// The files, open for reading.
class WeightFiles {
 public:
  /// Throws Error for a missing or damaged file, and unless the index and the shards name the same tensors, each in one
  /// shard.
  explicit WeightFiles(const std::filesystem::path& dir);

  /// The file that holds each tensor.
  const std::map<std::string, const SafetensorsReader*>& tensors() const { return tensors_; }
  /// Throws Error if absent.
  const SafetensorsReader& file_of(const std::string& tensor) const;

 private:
  std::filesystem::path dir_;
  std::vector<std::unique_ptr<SafetensorsReader>> files_;
  std::map<std::string, const SafetensorsReader*> tensors_;
};

}  // namespace routescope::model
