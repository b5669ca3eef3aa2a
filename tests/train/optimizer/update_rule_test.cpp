// The table of update rules.
#include "train/optimizer/update_rule.h"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

namespace routescope::train {
namespace {

TEST(UpdateRule, EveryNameMakesARuleWithNamedSlots) {
  ASSERT_EQ(update_rule_names().front(), OptimizerSettings{}.rule);
  for (const std::string& name : update_rule_names()) {
    const auto rule = make_update_rule({.rule = name});
    const std::vector<std::string> slots = rule->slots();
    EXPECT_EQ(std::set<std::string>(slots.begin(), slots.end()).size(), slots.size()) << name;
    // Checkpoints store SLOT.PARAMETER: a dot would make the end of a slot's name ambiguous.
    for (const std::string& slot : slots) EXPECT_EQ(slot.find('.'), std::string::npos) << name << ": " << slot;
  }
}

TEST(UpdateRule, AnUnknownNameIsRefused) {
  EXPECT_THROW(make_update_rule({.rule = "adamv"}), std::invalid_argument);
}

}  // namespace
}  // namespace routescope::train
