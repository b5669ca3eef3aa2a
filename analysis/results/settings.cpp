#include "analysis/results/settings.h"

#include <cmath>
#include <limits>

#include "data/base/json.h"

namespace routescope::analysis {
namespace {

using json = nlohmann::ordered_json;

/// What files of version 3.0 do not say: it was not measured there.
bool may_lack(const std::string& key) {
  return key == "frozen" || key == "direct";
}

/// Every member that the file keeps: its key and the member.
template <class Settings, class Visit>
void each_member(Settings& settings, const Visit& visit) {
  visit("seed", settings.seed);
  visit("ablations", settings.ablations);
  visit("sets", settings.sets);
  visit("controls", settings.controls);
  visit("margin", settings.margin);
  visit("until_decided", settings.until_decided);
  visit("look_every", settings.look_every);
  visit("by_position", settings.by_position);
  visit("by_repeat", settings.by_repeat);
  visit("class_file", settings.class_file);
  visit("frozen", settings.frozen);
  visit("direct", settings.direct);
}

template <class T>
json value_of(const T& member) {
  return member;
}
json value_of(const std::vector<Ablation>& ablations) {
  json out = json::array();
  for (Ablation ablation : ablations) out.push_back(to_string(ablation));
  return out;
}

template <class T>
void take(const json& value, const std::string& where, T& member) {
  member = data::json_value<T>(value, where);
}
void take(const json& value, const std::string& where, std::vector<Ablation>& ablations) {
  ablations.clear();
  for (const auto& name : data::json_value<std::vector<std::string>>(value, where)) {
    try {
      ablations.push_back(ablation_from_string(name));
    } catch (const data::UsageError& wrong) {
      throw data::Error("{}: {}", where, wrong.what());
    }
  }
}

json object_of(const ProbeSettings& settings) {
  json out = json::object();
  each_member(settings, [&](const char* key, const auto& member) { out[key] = value_of(member); });
  return out;
}

}  // namespace

std::string to_json(const ProbeSettings& settings) {
  return object_of(settings).dump(-1, ' ', false, json::error_handler_t::replace);  // paths may be no UTF-8
}

ProbeSettings settings_from_json(const std::string& text, const std::string& where) {
  ProbeSettings settings;
  const json object = data::parse_json<json>(text, where);
  std::size_t members = 0;
  each_member(settings, [&](const char* key, auto& member) {
    if (object.is_object() && !object.contains(key) && may_lack(key)) return;
    if (!object.is_object() || !object.contains(key))
      throw data::Error("{}: key {}: found nothing, expected a value", where, key);
    take(object.at(key), fmt::format("{}: key {}", where, key), member);
    ++members;
  });
  if (object.size() != members) throw data::Error("{}: found {} keys, expected {}", where, object.size(), members);
  try {
    check(settings);
  } catch (const data::UsageError& wrong) {
    throw data::Error("{}: {}", where, wrong.what());
  }
  return settings;
}

void check(const ProbeSettings& settings) {
  constexpr std::uint64_t most_seed = std::numeric_limits<std::int64_t>::max();
  if (!(settings.margin > 0) || !std::isfinite(settings.margin))
    throw data::UsageError("margin: found {}, expected a finite number above 0", settings.margin);
  if (settings.controls < 0 || settings.controls > most_controls)
    throw data::UsageError("controls: found {}, expected 0 to {}", settings.controls, most_controls);
  if (settings.look_every < 1)
    throw data::UsageError("look_every: found {}, expected at least 1 sequence", settings.look_every);
  if (settings.seed > most_seed)
    throw data::UsageError("seed: found {}, expected at most {}", settings.seed, most_seed);
}

std::string first_difference(const ProbeSettings& found, const ProbeSettings& expected) {
  const json was = object_of(found), now = object_of(expected);
  for (const auto& [key, value] : was.items()) {
    if (key == "class_file" || value == now.at(key)) continue;
    return fmt::format("{}: found {}, expected {}", key, data::excerpt(value), data::excerpt(now.at(key)));
  }
  return "";
}

}  // namespace routescope::analysis
