// The report is one page that needs nothing else, holds its data whole, and lets no text of the run act.
#include "analysis/report/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "analysis/report/token_text.h"
#include "data/base/error.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/analysis/report/report_sample.h"
#include "tests/data/base/temp_dir.h"

namespace routescope::analysis {
namespace {

using testing::make_run;
using testing::micro_config;

std::string text_between(const std::string& text, const std::string& begin, const std::string& end) {
  const std::size_t from = text.find(begin);
  if (from == std::string::npos) return {};
  const std::size_t to = text.find(end, from + begin.size());
  return to == std::string::npos ? std::string() : text.substr(from + begin.size(), to - from - begin.size());
}

std::vector<unsigned char> from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned char> out;
  unsigned word = 0, bits = 0;
  for (char c : text.substr(0, text.find('='))) {
    word = word << 6U | static_cast<unsigned>(digits.find(c));
    bits += 6;
    if (bits >= 8) out.push_back(static_cast<unsigned char>(word >> (bits -= 8)));
  }
  return out;
}

nlohmann::json data_of(const std::string& page) {
  return nlohmann::json::parse(text_between(page, "<script type=\"application/json\" id=\"data\">", "</script>"));
}

/// A model of 6 layers, probed at three steps with two ablations; everything that a page can show.
ReportInput sample_input(const std::string& name = "run") {
  testing::SampleShape shape;
  shape.steps = {0, 100, 400};
  shape.ablations = {Ablation::mask, Ablation::freeze};
  const model::ModelConfig config =
      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum);
  ReportInput input;
  input.name = name;
  input.config = config;
  input.record = testing::sample_routing(config, 5, 10);
  input.subjects.push_back({name, false, testing::sample_record(config, shape, 1), {}});
  input.subjects[0].findings = find(input.subjects[0].analysis);
  input.text = testing::sample_text(config, 2, 12);
  return input;
}

class Report : public ::testing::Test {
 protected:
  data::TempDir dir;
  std::filesystem::path run = dir / "run";

  void make(model::AttnResSource source = model::AttnResSource::block_sum,
            model::Residual residual = model::Residual::block_attn_res) {
    testing::make_run(run, testing::micro_config(residual, source));
  }
  nlohmann::json loaded(const std::vector<std::filesystem::path>& baselines = {}) {
    ReportRequest request;
    request.runs = {run};
    request.baselines = baselines;
    return report_data(load_report(request));
  }
};

TEST_F(Report, HoldsEverySectionAndTheNumbersOfTheRun) {
  const ReportInput input = sample_input();
  const std::string html = report_page(report_data(input));
  for (const char* id : {"overview", "emergence", "plane", "effects", "atlas", "routing", "tokens", "slices", "compare",
                         "content", "entropy", "loss"}) {
    EXPECT_NE(html.find("<section id=\"" + std::string(id) + "\""), std::string::npos) << id;
    EXPECT_TRUE(std::regex_search(html, std::regex("const figures = \\{[^}]*\\b" + std::string(id) + "\\b"))) << id;
  }
  EXPECT_FALSE(std::regex_search(html, std::regex("@[A-Z]+@"))) << "a place of the template was left empty";

  const nlohmann::json data = data_of(html);
  const AnalysisRecord& record = input.subjects[0].analysis;
  EXPECT_EQ(data.at("sources"), (std::vector<std::string>{"embedding", "block_1", "block_2", "current"}));
  EXPECT_EQ(data.at("claims").size(), 3U);
  const nlohmann::json& subject = data.at("subjects").at(0);
  EXPECT_EQ(subject.at("step"), (std::vector<int>{0, 100, 400}));
  EXPECT_EQ(subject.at("ablations"), (std::vector<std::string>{"mask", "freeze"}));
  const auto expect_shown = [](const nlohmann::json& shown, double value) {
    ASSERT_EQ(shown.is_null(), std::isnan(value));
    if (shown.is_null()) return;
    EXPECT_NEAR(shown.get<double>(), value, 5.1e-4 * std::abs(value));
  };
  for (std::size_t p = 0; p < 3; ++p) {
    for (std::size_t s = 0; s < num_slices; ++s) {
      expect_shown(subject.at("mass").at(p).at(s), record.rows[p].mass[s]);
      for (Ablation ablation : {Ablation::mask, Ablation::freeze}) {
        const nlohmann::json& shown = subject.at("effects").at(to_string(ablation));
        const AblationEffects& effects = record.rows[p].effects(ablation);
        expect_shown(shown.at("delta").at(p).at(s), effects.sets[s].delta_nll.value);
        expect_shown(shown.at("excess_upper").at(p).at(s), effects.sets[s].control.excess.ci.upper);
        expect_shown(shown.at("absent").at(p).at(s), effects.sets[s].p_equivalence_adjusted);
      }
    }
  }
  const Atlas& atlas = record.rows[2].atlas;
  expect_shown(data.at("atlas").at(2).at("first").at(1), atlas.first_order[1].value);
  EXPECT_EQ(data.at("atlas").at(2).at("checked").size(), atlas.checked.size());
  expect_shown(data.at("atlas").at(2).at("true").at(0), atlas.checked[0].true_effect.value);
}

TEST_F(Report, ReadsARunFromItsFiles) {
  make();
  const nlohmann::json data = loaded();
  EXPECT_EQ(data.at("run"), "run");
  EXPECT_EQ(data.at("reads").at("name").size(), 13U);
  EXPECT_EQ(data.at("snapshots").at("step"), (std::vector<int>{0, 1, 2, 4}));
  EXPECT_EQ(data.at("train").at("tokens"), (std::vector<int>{64, 128, 192, 256}));
  EXPECT_EQ(data.at("valid").at("tokens"), (std::vector<int>{0, 64, 128, 256}));
  // Weights in 1/10000; 1.attn (read 2) of four columns sees the embedding and the current block, half each.
  const std::vector<int> weights = data.at("snapshots").at("alpha").at(3);
  EXPECT_EQ(std::vector<int>(weights.begin() + 8, weights.begin() + 12), (std::vector<int>{5000, -1, -1, 5000}));
}

// ---- the claims are worded from the findings, whatever these are ----

nlohmann::json claims_of(const ReportInput& input) {
  return report_data(input).at("claims");
}

Motif motif(double excess, double half_width) {
  Motif out;
  out.name = "embedding_early_mlp";
  out.slices = {3};
  out.of_paper = true;
  out.effect = {{excess + 0.1, {excess, excess + 0.2}}};
  out.control = {{0.1, {0.09, 0.11}}};
  out.excess = {{excess, {excess - half_width, excess + half_width}}};
  out.mass = {{0.2, {0.1, 0.3}}};
  if (excess > half_width) out.shown_from = 400;
  return out;
}

TEST_F(Report, WordsWhatItFindsAlsoWhereThatContradictsThePaper) {
  ReportInput input = sample_input();
  Findings& findings = input.subjects[0].findings;
  findings.step = {400};
  const auto tone = [&](std::size_t claim) { return claims_of(input).at(claim).at("tone").get<std::string>(); };
  const auto verdict = [&](std::size_t claim) { return claims_of(input).at(claim).at("verdict").get<std::string>(); };
  const auto evidence = [&](std::size_t claim) { return claims_of(input).at(claim).at("evidence").dump(); };

  findings.motifs = {motif(0.5, 0.1), motif(0.4, 0.1)};
  EXPECT_EQ(tone(1), "yes");
  findings.motifs = {motif(0.5, 0.1), motif(0.05, 0.1)};
  EXPECT_EQ(tone(1), "part");
  EXPECT_EQ(verdict(1), "1 of 2 motifs shown above their controls");
  findings.motifs = {motif(-0.5, 0.1)};
  EXPECT_EQ(tone(1), "no");
  EXPECT_NE(evidence(1).find("less than theirs"), std::string::npos);
  findings.motifs = {motif(std::nan(""), 0)};
  EXPECT_EQ(tone(1), "open");
  findings.motifs = {};
  EXPECT_EQ(verdict(1), "Not measured");

  Dissociation row;
  row.largest_mass = 3;
  row.largest_effect = 12;
  row.p_same = 0.01;
  row.p_largest = 0.001;
  row.idle = {7};
  findings.dissociation = {row};
  EXPECT_EQ(tone(2), "yes");
  findings.dissociation[0].idle = {};
  EXPECT_EQ(tone(2), "part");
  EXPECT_NE(evidence(2).find("No slice with a mass of 0.1 or more"), std::string::npos);
  findings.dissociation[0].p_largest = 0.3;
  EXPECT_EQ(tone(2), "open");
  findings.dissociation[0].largest_effect = 3;
  findings.dissociation[0].p_same = 0.99;
  EXPECT_EQ(tone(2), "no");
  findings.dissociation = {};
  EXPECT_EQ(verdict(2), "Not measured");
}

TEST_F(Report, HoldsAWrappedBaselineAgainstItsClosedForm) {
  ReportInput input = sample_input();
  EXPECT_EQ(claims_of(input).at(0).at("tone"), "open");
  input.subjects.push_back(input.subjects[0]);
  ReportSubject& wrapped = input.subjects[1];
  wrapped.name = "wrapped";
  wrapped.baseline = true;
  ProbeRow& row = wrapped.analysis.rows.back();
  row.closed_form_error = 1e-7;
  for (double& variance : row.alpha_variance) variance = std::isnan(variance) ? variance : 1e-15;
  EXPECT_EQ(claims_of(input).at(0).at("tone"), "yes");
  row.closed_form_error = 1e-3;
  EXPECT_EQ(claims_of(input).at(0).at("tone"), "no");
  row.closed_form_error = std::nan("");  // queries that are not zero
  EXPECT_EQ(claims_of(input).at(0).at("tone"), "no");
  row.closed_form_error = 1e-7;
  row.alpha_variance[row.alpha_variance.size() - 1] = 1e-4;
  EXPECT_EQ(claims_of(input).at(0).at("tone"), "no");
}

TEST_F(Report, PutsRunsBesideEachOtherByTheNamesOfTheirSets) {
  ReportInput input = sample_input();
  input.subjects.push_back(input.subjects[0]);
  AnalysisRecord& other = input.subjects[1].analysis;
  std::swap(other.identity.sets[0], other.identity.sets[1]);
  other.identity.sets[2] = "3.attn";
  const nlohmann::json data = report_data(input), &a = data.at("subjects").at(0), &b = data.at("subjects").at(1);
  for (const char* field : {"delta", "control"}) {
    const nlohmann::json &first = a.at("effects").at("mask").at(field).at(2),
                         &second = b.at("effects").at("mask").at(field).at(2);
    EXPECT_EQ(second.at(0), first.at(1));
    EXPECT_EQ(second.at(1), first.at(0));
    EXPECT_TRUE(second.at(2).is_null());
    EXPECT_EQ(second.at(3), first.at(3));
  }
}

TEST_F(Report, DrawsSetsThatAreNoSlices) {
  ReportInput input = sample_input();
  AnalysisRecord& record = input.subjects[0].analysis;
  record.identity.sets = {"3.attn:block_2", "<all>"};
  const nlohmann::json data = report_data(input);
  EXPECT_EQ(data.at("sets").size(), 2U);
  EXPECT_TRUE(data.at("sets").at(0).at("family").is_null());
  EXPECT_EQ(data.at("sets").at(1).at("title"), "<all>");
  EXPECT_EQ(data.at("subjects").at(0).at("effects").at("mask").at("delta").at(0).size(), 2U);
}

// ---- text ----

TEST(TokenTextTest, ReadsByteLevelVocabularies) {
  data::TempDir dir;
  data::write_text_atomically(dir / "tokenizer.json",
                              R"({"model": {"vocab": {"\u0120the": 0, "\u010a": 1, "\u00e2\u0122\u013b": 2,
      "\u00e2": 3, "<": 4, "\u00c3\u00a9": 5}}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}]},
      "added_tokens": [{"id": 6, "content": "<|end|>"}]})");
  const TokenText text = TokenText::load(dir / "tokenizer.json");
  EXPECT_EQ(text(0), " the");
  EXPECT_EQ(text(1), "\n");
  EXPECT_EQ(text(2), "\u2019");
  EXPECT_EQ(text(3), "\\xE2");  // a piece of a character
  EXPECT_EQ(text(4), "<");
  EXPECT_EQ(text(5), "\u00e9");
  EXPECT_EQ(text(6), "<|end|>");
  EXPECT_EQ(text(7), "<7>");
}

TEST(TokenTextTest, ReadsPiecesBytesAndNumbers) {
  data::TempDir dir;
  data::write_text_atomically(dir / "unigram.json",
                              R"({"model": {"vocab": [["<unk>", 0], ["\u2581a\u2581b", -1.5], ["<0x0A>", -2]]}})");
  const TokenText pieces = TokenText::load(dir / "unigram.json");
  EXPECT_EQ(pieces(1), " a b");
  EXPECT_EQ(pieces(2), "\n");
  EXPECT_EQ(TokenText::builtin(257)('a'), "a");
  EXPECT_EQ(TokenText::builtin(257)(0xC3), "\\xC3");
  EXPECT_EQ(TokenText::builtin(257)(256), "<256>");
  EXPECT_EQ(TokenText::builtin(4096)(97), "97 ");
  data::write_text_atomically(dir / "other.json", "{}");
  EXPECT_THROW(TokenText::load(dir / "other.json"), data::Error);
}

TEST_F(Report, KeepsTheWeightsOfEveryShownToken) {
  const ReportInput input = sample_input();
  const nlohmann::json text = report_data(input).at("text");
  const std::size_t reads = input.record.info.reads.size(), columns = input.record.info.sources.size();
  ASSERT_EQ(text.at("sequences"), 2);
  ASSERT_EQ(text.at("positions"), 12);
  EXPECT_EQ(text.at("tokens").at(1).at(3), " word15");
  const std::vector<unsigned char> weights = from_base64(text.at("weights"));
  ASSERT_EQ(weights.size(), 2 * reads * 12 * columns);
  for (std::size_t s = 0; s < 2; ++s) {
    for (std::size_t r = 0; r < reads; ++r) {
      for (std::size_t at = 0; at < 12 * columns; ++at) {
        const float alpha = input.text->alpha[(r * 2 + s) * 12 * columns + at];
        const unsigned char shown = weights[(s * reads + r) * 12 * columns + at];
        if (std::isnan(alpha)) {
          EXPECT_EQ(shown, 255);
        } else {
          EXPECT_NEAR(shown / 254.0, alpha, 0.5 / 254 + 1e-6);
        }
      }
    }
  }
}

TEST_F(Report, NeedsNothingElse) {
  const std::string html = report_page(report_data(sample_input()));
  // The one address is the name of SVG's namespace, which nothing is loaded from.
  const std::string rest = std::regex_replace(html, std::regex("http://www\\.w3\\.org/2000/svg"), "");
  EXPECT_FALSE(
      std::regex_search(rest, std::regex("https?:|src=|href=|@import|url\\((?!#)|fetch\\(|XMLHttpRequest|import ")));
}

TEST_F(Report, LetsNoTextOfTheRunAct) {
  ReportInput input = sample_input("a<script>alert(1)<&'b");
  input.text->tokens[0] = "</script><b>";
  input.subjects[0].analysis.identity.sets[0] = "</script><i>";
  const std::string html = report_page(report_data(input));
  EXPECT_EQ(data_of(html).at("text").at("tokens").at(0).at(0), "</script><b>");
  EXPECT_EQ(html.find("</script><"), std::string::npos);
  EXPECT_EQ(data_of(html).at("run"), "a<script>alert(1)<&'b");
  EXPECT_EQ(html.find("alert(1)<"), std::string::npos);
  EXPECT_NE(html.find("<title>a&lt;script&gt;alert(1)&lt;&amp;'b"), std::string::npos);
  // What a hostile text would need: the end of the data's element within the data.
  nlohmann::json data = data_of(html);
  data["run"] = "</script><img>";
  const std::string hostile = report_page(data);
  EXPECT_EQ(data_of(hostile).at("run"), "</script><img>");
  EXPECT_EQ(hostile.find("<img>"), std::string::npos);
}

TEST_F(Report, SaysWhatIsMissing) {
  make();
  const nlohmann::json unprobed = loaded();
  EXPECT_TRUE(unprobed.at("subjects").empty());
  EXPECT_TRUE(unprobed.at("claims").empty());
  EXPECT_NE(unprobed.at("not_probed").get<std::string>().find("routescope-analyze track"), std::string::npos);
  EXPECT_THROW(loaded({dir / "absent.h5"}), data::Error);
  run = dir / "standard";
  make(model::AttnResSource::block_sum, model::Residual::standard);
  const nlohmann::json standard = loaded();
  EXPECT_TRUE(standard.at("reads").at("name").empty());
  EXPECT_TRUE(standard.at("snapshots").at("step").empty());
  EXPECT_NE(standard.at("not_probed").get<std::string>().find("not routed"), std::string::npos);
  EXPECT_EQ(standard.at("train").at("step").size(), 4U);
  run = dir / "nowhere";
  EXPECT_THROW(loaded(), data::Error);
}

TEST_F(Report, StaysBelowFiveMegabytesForFortyStepsOf28Layers) {
  // Every ablation and an atlas at every step, 300 snapshots, 20000 training steps; then every sublayer its own source.
  for (model::Residual residual : {model::Residual::block_attn_res, model::Residual::full_attn_res}) {
    model::ModelConfig config = testing::micro_config(residual, model::AttnResSource::block_sum, 28);
    config.num_blocks = 8;
    testing::SampleShape shape;
    shape.sequences = 3;
    for (std::int64_t step = 0; step < 40; ++step) shape.steps.push_back(step * 50);
    shape.ablations = {Ablation::mask,     Ablation::zero,   Ablation::mean,
                       Ablation::resample, Ablation::freeze, Ablation::patch};
    ReportInput input;
    input.name = "long";
    input.config = config;
    input.record = testing::sample_routing(config, 300, 20000);
    input.subjects.push_back({"long", false, testing::sample_record(config, shape, 3), {}});
    input.subjects[0].findings = find(input.subjects[0].analysis);
    input.text = testing::sample_text(config, 4, 256);
    const nlohmann::json data = report_data(input);
    EXPECT_LT(report_page(data).size(), 5'000'000U) << model::to_string(residual);
    const std::vector<std::int64_t> steps = data.at("snapshots").at("step"), losses = data.at("train").at("step");
    EXPECT_EQ(steps.front(), 0);
    EXPECT_EQ(steps.back(), 2990);
    EXPECT_GT(steps.size(), 30U);
    EXPECT_EQ(data.at("subjects").at(0).at("step").size(), 40U);
    EXPECT_EQ(data.at("atlas").back().at("step"), 1950);
    EXPECT_GE(data.at("text").at("positions"), 128);
    EXPECT_EQ(data.at("train").at("rows"), 20000);
    EXPECT_LE(losses.size(), 1200U);
    EXPECT_GT(losses.size(), 400U);
    EXPECT_EQ(losses.front(), 1);
    EXPECT_EQ(losses.back(), 20000);
    // A bin's loss is the mean of its rows.
    const double last = data.at("train").at("loss").back();
    EXPECT_NEAR(last, 1.0 + 1.0 / 19900, 6e-5);
  }
}

}  // namespace
}  // namespace routescope::analysis
