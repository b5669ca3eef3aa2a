#include "train/optimizer/update_rule.h"

#include <stdexcept>

#include "train/optimizer/adamw.h"

namespace routescope::train {

namespace {

struct NamedRule {
  const char* name;
  std::unique_ptr<UpdateRule> (*make)(const OptimizerSettings& settings);
};

template <class Rule>
std::unique_ptr<UpdateRule> make(const OptimizerSettings& settings) {
  return std::make_unique<Rule>(settings);
}

constexpr NamedRule kRules[] = {
    {"adamw", make<AdamW>},
};

}  // namespace

std::vector<std::string> update_rule_names() {
  std::vector<std::string> names;
  for (const NamedRule& rule : kRules) names.emplace_back(rule.name);
  return names;
}

std::unique_ptr<UpdateRule> make_update_rule(const OptimizerSettings& settings) {
  for (const NamedRule& rule : kRules)
    if (settings.rule == rule.name) return rule.make(settings);
  throw std::invalid_argument("make_update_rule: no rule is named " + settings.rule);
}

}  // namespace routescope::train
