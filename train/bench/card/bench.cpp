#include "train/bench/card/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/base/error.h"
#include "kernels/cuda/products.h"
#include "kernels/device.h"
#include "model/pass/activations.h"
#include "train/bench/card/rates.h"
#include "train/bench/card/read_traffic.h"
#include "train/bench/card/traffic.h"
#include "train/bench/card/training.h"
#include "train/plan/throughput.h"

namespace routescope::train {

namespace {

using Json = nlohmann::ordered_json;

/// Dense bf16 FLOP/s in the vendor's datasheets of H100 and H200 (SXM) and of A100; 0 for another card.
double datasheet_flops(const std::string& card) {
  const auto is = [&](const char* part) { return card.find(part) != std::string::npos; };
  if (is("H200") && !is("GH200")) return 989e12;
  if (is("H100") && !is("PCIe") && !is("NVL")) return 989e12;
  return is("A100") ? 312e12 : 0;
}

std::string to_string(model::Recompute level) {
  switch (level) {
    case model::Recompute::none:
      return "none";
    case model::Recompute::swiglu:
      return "swiglu";
    case model::Recompute::norms:
      return "norms";
    case model::Recompute::attention:
      return "attention";
  }
  return "";
}

model::ReadPhases phases_of(const std::string& word) {
  return word == "fused"       ? model::ReadPhases::fused
         : word == "two_phase" ? model::ReadPhases::two
                               : model::ReadPhases::automatic;
}

/// "57.1 %", or "" if `of` is not known.
std::string share(double rate, double of) {
  return of > 0 ? fmt::format("{:.1f} %", 100 * rate / of) : "";
}

double gibibytes(std::size_t bytes) {
  return static_cast<double>(bytes) / (1 << 30);
}

/// The measurements, their results as JSON, and the number of failures.
class Card {
 public:
  explicit Card(const CardBench& bench) : bench_(bench) {
    const kernels::DeviceInfo info = kernels::device_info();
    json_["device"] = {{"name", info.name},
                       {"capability", info.capability},
                       {"multiprocessors", info.multiprocessors},
                       {"total_bytes", info.total_bytes}};
    fmt::print("{}, capability {}.{}, {} multiprocessors, {:.1f} GiB\n", info.name, info.capability / 10,
               info.capability % 10, info.multiprocessors, gibibytes(info.total_bytes));
    datasheet_ = datasheet_flops(info.name);
    json_["datasheet_flops_per_second"] = datasheet_;
    const model::ModelConfig& model = bench.model;
    fmt::print(
        "model: hidden size {}, {} layers in {} blocks, {} heads of {} ({} kv), intermediate {}, vocabulary {}; "
        "{} x {} tokens, bf16\n",
        model.hidden_size, model.num_hidden_layers, model.num_blocks, model.num_attention_heads, model.head_dim,
        model.num_key_value_heads, model.intermediate_size, model.vocab_size, bench.batch, bench.sequence_length);
    std::fflush(stdout);
    options_.device = kernels::Device::cuda;
    options_.operands = kernels::DType::bf16;
    shape_.model = model;
    shape_.batch = bench.batch;
    shape_.sequence_length = bench.sequence_length;
    kernels::Arena planner(kernels::Device::cuda);
    model::Activations activations;
    activations.take(planner, model, model::ReadPlan(model), options_, shape_.attention(), true, {});
    shape_.head_rows = activations.head_rows;
    json_["model"] = model.to_json();
    json_["tokens"] = shape_.tokens();
    json_["head_rows"] = shape_.head_rows;
  }

  int run() {
    if (asked("copy") || asked("operations")) traffic();
    if (asked("attention")) attention();
    if (asked("products")) products();
    if (asked("steps")) steps();
    return failed_;
  }

 private:
  bool asked(const char* part) const { return std::ranges::find(bench_.parts, part) != bench_.parts.end(); }

  void write() const {
    if (bench_.json.empty()) return;
    std::ofstream out(bench_.json);
    out << json_.dump(1) << '\n';
    out.close();
    if (!out) throw data::Error("{}: cannot be written", bench_.json);
  }

  void fail(const std::string& name, const std::string& error) {
    ++failed_;
    fmt::print("{:<44} failed: {}\n", name, error);
  }

  void traffic() {
    fmt::print("\n{:<44} {:<14} {:>10} {:>10} {:>10} {:>8} {:>6}\n", "limited by memory", "bytes a token", "MB a call",
               "us", "GB/s", "of copy", "aim");
    double copy_rate = 0;
    Json rows = Json::array();
    const auto report = [&](const Traffic& t) {
      Json row{{"name", t.name},
               {"formula", t.formula},
               {"bytes", t.bytes},
               {"seconds", t.seconds},
               {"bytes_per_second", t.bytes_per_second()}};
      if (copy_rate > 0) row["share_of_copy"] = t.bytes_per_second() / copy_rate;
      if (t.aim > 0) row["aim"] = t.aim;
      if (!t.error.empty()) {
        row["error"] = t.error;
        fail(t.name, t.error);
      } else {
        fmt::print("{:<44} {:<14} {:>10.1f} {:>10.1f} {:>10.0f} {:>8} {:>6}\n", t.name, t.formula, t.bytes / 1e6,
                   1e6 * t.seconds, t.bytes_per_second() / 1e9,
                   copy_rate > 0 ? fmt::format("{:.1f} %", 100 * t.bytes_per_second() / copy_rate) : "",
                   t.aim > 0 ? fmt::format("{:.0f} %", 100 * t.aim) : "");
      }
      std::fflush(stdout);
      rows.push_back(row);
    };
    TrafficBench traffic(shape_, bench_.timing, report);
    traffic.copies(bench_.copy_bytes);
    for (const Traffic& copy : traffic.results()) copy_rate = std::max(copy_rate, copy.bytes_per_second());
    json_["copy_bytes_per_second"] = copy_rate;
    fmt::print("copy bandwidth, the faster of the two: {:.0f} GB/s\n", copy_rate / 1e9);
    if (asked("operations")) {
      measure_reads(traffic);
      compare_phases(traffic.results());
      traffic.dense();
    }
    json_["traffic"] = rows;
    write();
  }

  /// The time of a group's forward reads in one phase and in two.
  void compare_phases(const std::vector<Traffic>& results) {
    const auto seconds = [&](const std::string& name) {
      const auto found = std::ranges::find(results, name, &Traffic::name);
      return found == results.end() || !found->error.empty() ? 0.0 : found->seconds;
    };
    for (const std::string n : {"1", "4", "8"}) {
      const double fused = 8 * seconds("attn_res_forward, n = " + n);
      const double prepare = seconds("attn_res_prepare, R = 8, n = " + n), merge = seconds("attn_res_merge, n = " + n);
      if (fused <= 0 || prepare <= 0 || merge <= 0) continue;
      const double two = prepare + 8 * merge;
      fmt::print("8 reads, n = {}: fused {:.1f} us, in two phases {:.1f} us ({:.2f} of it)\n", n, 1e6 * fused,
                 1e6 * two, two / fused);
      json_["groups"].push_back({{"n", std::stoi(n)}, {"reads", 8}, {"fused_seconds", fused}, {"two_seconds", two}});
    }
  }

  Json rate_rows(const std::vector<Rate>& rates) const {
    Json rows = Json::array();
    for (const Rate& rate : rates) {
      Json row{{"name", rate.name},
               {"flops", rate.flops},
               {"count", rate.count},
               {"seconds", rate.seconds},
               {"flops_per_second", rate.flops_per_second()}};
      if (!rate.error.empty()) row["error"] = rate.error;
      rows.push_back(row);
    }
    return rows;
  }

  RateReport rate_report() {
    return [this](const Rate& rate) {
      if (!rate.error.empty()) {
        fail(rate.name, rate.error);
      } else {
        fmt::print("{:<44} {:>12.2f} {:>10.1f} {:>10.0f} {:>8}\n", rate.name, rate.flops / 1e9, 1e6 * rate.seconds,
                   rate.flops_per_second() / 1e12, rate.count);
      }
      std::fflush(stdout);
    };
  }

  void rate_header(const char* what) const {
    fmt::print("\n{:<44} {:>12} {:>10} {:>10} {:>8}\n", what, "GFLOP a call", "us", "TFLOP/s", "in a pass");
  }

  void attention() {
    rate_header("attention (causal FLOPs, backward 2.5x)");
    json_["attention"] = rate_rows(attention_rates(shape_, bench_.timing, rate_report()));
    write();
  }

  void products() {
    rate_header("matrix products");
    const std::vector<Rate> rates = product_rates(shape_, bench_.timing, rate_report());
    product_rate_ = combined_rate(rates);
    fmt::print("all of a pass together: {:.0f} TFLOP/s, {} of the datasheet's {:.0f}\n", product_rate_ / 1e12,
               share(product_rate_, datasheet_), datasheet_ / 1e12);
    json_["products"] = rate_rows(rates);
    json_["product_flops_per_second"] = product_rate_;
    write();
  }

  void steps() {
    const double flops = flops_per_token(bench_.model, bench_.sequence_length);
    fmt::print("\ntraining steps of {} x {} x {} tokens{}; {:.4g} FLOP a token (train/bench/README.md)\n",
               bench_.accumulate, bench_.batch, bench_.sequence_length,
               fmt::format("{}{}", bench_.graph ? ", passes replayed as a graph" : "",
                           bench_.tune_products ? ", products tuned" : ""),
               flops);
    fmt::print("{:<44} {:>10} {:>12} {:>10} {:>12} {:>10} {:>10}\n", "", "s a step", "tokens/s", "MFU", "of products",
               "GiB", "GiB taken");
    for (const std::string& reads : bench_.reads)
      step_pair(phases_of(reads), model::to_string(bench_.model.residual) + ", reads " + reads, flops);
    write();
  }

  void step_pair(model::ReadPhases phases, const std::string& name, double flops) {
    const StepComparison result = compare_steps({.model = bench_.model,
                                                 .options = options_,
                                                 .pass = {.reads = phases, .graph = bench_.graph},
                                                 .batch = bench_.batch,
                                                 .sequence_length = bench_.sequence_length,
                                                 .accumulate = bench_.accumulate,
                                                 .rounds = bench_.rounds});
    if (!result.error.empty()) {
      json_["steps"].push_back({{"routed", name}, {"error", result.error}});
      fail(name, result.error);
      return;
    }
    Json row{{"routed", name},
             {"rounds", bench_.rounds},
             {"recompute", to_string(result.recompute)},
             {"routed_over_standard", result.routed_over_standard}};
    const auto line = [&](const char* key, const std::string& label, const StepSpeed& speed) {
      const double rate = speed.tokens_per_second * flops;
      fmt::print("{:<44} {:>10.3f} {:>12.0f} {:>10} {:>12} {:>10.1f} {:>10.1f}\n", label, speed.seconds,
                 speed.tokens_per_second, share(rate, datasheet_), share(rate, product_rate_), gibibytes(speed.bytes),
                 gibibytes(speed.device_bytes));
      row[key] = {{"seconds", speed.seconds},
                  {"tokens_per_second", speed.tokens_per_second},
                  {"bytes", speed.bytes},
                  {"device_bytes", speed.device_bytes}};
      if (datasheet_ > 0) row[key]["mfu_datasheet"] = rate / datasheet_;
      if (product_rate_ > 0) row[key]["mfu_products"] = rate / product_rate_;
    };
    line("standard_speed", "standard", result.standard);
    line("routed_speed", name, result.routed);
    fmt::print("{:<44} {:>+9.2f} % time over standard, recomputed: {}\n", "", 100 * (result.routed_over_standard - 1),
               to_string(result.recompute));
    std::fflush(stdout);
    json_["steps"].push_back(row);
  }

  const CardBench& bench_;
  model::ModelOptions options_;
  BenchShape shape_;
  Json json_;
  double datasheet_ = 0, product_rate_ = 0;  // FLOP/s; 0: not known
  int failed_ = 0;
};

}  // namespace

const std::vector<std::string>& CardBench::all_parts() {
  static const std::vector<std::string> parts{"copy", "operations", "attention", "products", "steps"};
  return parts;
}

int bench_card(const CardBench& bench) {
  kernels::cuda::set_product_tuning(bench.tune_products);
  return Card(bench).run();
}

}  // namespace routescope::train
