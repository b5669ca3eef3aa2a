#include "model/files/weights.h"

#include "data/base/files.h"
#include "data/base/json.h"
#include "data/base/manifest.h"

namespace routescope::model {

std::map<std::string, std::string> parse_weight_index(const std::string& text, const std::string& where) {
  const auto index = data::parse_json(text, where);
  const auto& listed = data::json_member(index, "weight_map", where);
  const std::string at = where + ": weight_map";
  if (!listed.is_object() || listed.empty())
    throw data::Error("{}: found {}, expected an object: tensor -> file", at, data::excerpt(listed));
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : listed.items()) {
    const std::string of = at + ": " + data::shortened(tensor);
    files[tensor] = data::json_value<std::string>(file, of);
    if (!data::is_file_name(files[tensor]))
      throw data::Error("{}: found {}, expected the name of a file in the same directory", of, data::excerpt(file));
  }
  return files;
}

WeightFiles::WeightFiles(const std::filesystem::path& dir) : dir_(dir) {
  const auto single = dir / "model.safetensors", index = dir / "model.safetensors.index.json";
  if (std::filesystem::exists(single) || !std::filesystem::exists(index)) {
    files_.push_back(std::make_unique<SafetensorsReader>(single));
    for (const SafetensorsEntry& entry : files_.back()->entries()) tensors_[entry.name] = files_.back().get();
    return;
  }
  const auto listed = parse_weight_index(data::read_text(index), index.string());
  std::map<std::string, const SafetensorsReader*> opened;
  for (const auto& [tensor, file] : listed) {
    if (opened.contains(file)) continue;
    files_.push_back(std::make_unique<SafetensorsReader>(dir / file));
    opened[file] = files_.back().get();
  }
  for (const auto& reader : files_) {
    for (const SafetensorsEntry& entry : reader->entries()) {
      const auto found = listed.find(entry.name);
      if (const std::string here = reader->file().filename().string(); found == listed.end() || found->second != here)
        throw data::Error("{}: {}: found in {}, expected {} by {}", dir.string(), data::shortened(entry.name), here,
                          found == listed.end() ? "no such tensor" : "it in " + data::shortened(found->second),
                          index.filename().string());
      tensors_[entry.name] = reader.get();
    }
  }
  for (const auto& [tensor, file] : listed) {
    if (!tensors_.contains(tensor))
      throw data::Error("{}: {}: absent, expected it by {}", (dir / file).string(), data::shortened(tensor),
                        index.filename().string());
  }
}

const SafetensorsReader& WeightFiles::file_of(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  if (found == tensors_.end())
    throw data::Error("{}: {}: absent, expected a tensor of this name",
                      (files_.size() == 1 ? files_.front()->file() : dir_).string(), tensor);
  return *found->second;
}

}  // namespace routescope::model
