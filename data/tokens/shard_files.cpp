#include "data/tokens/shard_files.h"

#include <glob.h>
#include <sys/stat.h>

#include <map>
#include <utility>

#include "data/base/error.h"

namespace routescope::data {

namespace fs = std::filesystem;

namespace {

/// The path as a pattern that matches nothing else.
std::string literally(const fs::path& path) {
  std::string out;
  for (const char c : path.string()) {
    if (c == '*' || c == '?' || c == '[' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::vector<fs::path> matches(const fs::path& directory, const fs::path& pattern) {
  const std::string all = directory.empty() ? pattern.string() : literally(directory / "") + pattern.string();
  glob_t found{};
  const int status = ::glob(all.c_str(), 0, nullptr, &found);
  std::vector<fs::path> out(found.gl_pathv, found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  return out;
}

std::vector<fs::path> expand(const std::string& text) {
  std::vector<fs::path> places{""};
  for (const fs::path& part : fs::path(text)) {
    std::vector<fs::path> next;
    for (const fs::path& place : places) {
      std::error_code ignored;
      if (part.empty() || fs::exists(place / part, ignored))
        next.push_back(place / part);
      else
        for (fs::path& found : matches(place, part)) next.push_back(std::move(found));
    }
    places = std::move(next);
  }
  if (places.empty()) throw Error("{}: no such file (nothing matches)", text);
  return places;
}

std::pair<dev_t, ino_t> identity(const fs::path& file) {
  struct stat status {};
  // What cannot be opened is reported by who opens it.
  return ::stat(file.c_str(), &status) == 0 ? std::pair(status.st_dev, status.st_ino) : std::pair(dev_t{}, ino_t{});
}

}  // namespace

std::vector<fs::path> shard_files(const std::vector<std::string>& patterns) {
  if (patterns.empty()) throw Error("no token shards were named");
  std::vector<fs::path> out;
  std::map<std::pair<dev_t, ino_t>, fs::path> seen;
  for (const std::string& pattern : patterns)
    for (const fs::path& file : expand(pattern)) {
      if (const auto [other, fresh] = seen.emplace(identity(file), file); !fresh && other->first.second != 0)
        throw Error("{}: found the same file as {}, expected each token shard once", file.string(),
                    other->second.string());
      out.push_back(file);
    }
  return out;
}

void require_apart_shards(const std::vector<std::string>& train_patterns, const std::string& train,
                          const std::vector<std::string>& valid_patterns, const std::string& valid) {
  std::map<std::pair<dev_t, ino_t>, fs::path> trained;
  for (const fs::path& file : shard_files(train_patterns)) trained.emplace(identity(file), file);
  for (const fs::path& file : shard_files(valid_patterns)) {
    const auto other = trained.find(identity(file));
    if (other != trained.end())
      throw Error("{}: found {}, which {} names too (as {}), expected other data than is trained on", valid,
                  file.string(), train, other->second.string());
  }
}

}  // namespace routescope::data
