// routescope-analyze circuit from the outside, and the graphs that it exports.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>

#include "analysis/circuits/circuit_file.h"
#include "analysis/circuits/graph.h"
#include "data/base/files.h"
#include "tests/analysis/circuits/filled_circuits.h"
#include "tests/analysis/probe/micro_run.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::analysis {
namespace {

struct Result {
  int status;
  std::string output;
};

Result shell(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string output;
  std::array<char, 4096> buffer;
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), pipe)) output.append(buffer.data(), n);
  return {WEXITSTATUS(::pclose(pipe)), output};
}

class CircuitTool : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::make_run(dir_ / "run",
                      testing::micro_config(model::Residual::block_attn_res, model::AttnResSource::block_sum), {0, 4});
  }
  Result run(const std::string& arguments) const {
    return shell("cd " + dir_.path().string() + " && OMP_NUM_THREADS=1 " + testing::bin_dir() +
                 "/routescope-analyze circuit " + arguments);
  }
  void expect_refused(const std::string& arguments, int status, const std::string& part) const {
    const Result result = run(arguments);
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_NE(result.output.find(part), std::string::npos) << result.output << "lacks " << part;
    EXPECT_EQ(std::count(result.output.begin(), result.output.end(), '\n'), 1) << result.output;
    EXPECT_FALSE(std::filesystem::exists(dir_ / "run/circuit.h5"));
  }
  data::TempDir dir_;
};

TEST_F(CircuitTool, MeasuresStepsOnceAndExportsTheirGraphs) {
  const Result first = run("--run run --step all --baselines 1 --export graphs");
  EXPECT_EQ(first.status, 0) << first.output;
  EXPECT_NE(first.output.find("run/circuit.h5: 2 rows"), std::string::npos) << first.output;
  for (const char* file : {"circuit-0.json", "circuit-0.graphml", "circuit-4.json", "circuit-4.graphml"})
    EXPECT_TRUE(std::filesystem::exists(dir_ / "graphs" / file)) << file;
  const Result again = run("--run run --step 4 --baselines 1");
  EXPECT_NE(again.output.find("step 4 is there already"), std::string::npos) << again.output;
  const Result other = run("--run run --step 4 --baselines 2");
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.output.find("attribute settings: found"), std::string::npos) << other.output;
  EXPECT_EQ(load_circuits(dir_ / "run/circuit.h5").rows.size(), 2U);
}

TEST_F(CircuitTool, RefusesWhatCannotBeMeasured) {
  expect_refused("", 2, "expected either --run or --model");
  expect_refused("--model run/checkpoints/step-00000004", 2, "--model needs --tokens");
  expect_refused("--run run --sequences 1", 1, "found 1 document, expected at least 2");
  expect_refused("--run run --faithfulness 2", 2, "--faithfulness");
  expect_refused("--run run --ablation mask", 2, "--ablation");
  testing::make_run(dir_ / "plain", testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum),
                    {4});
  expect_refused("--run plain", 1, "it has no reads to probe");
}

/// Reads both formats by Python's standard library, and compares them.
constexpr const char* reader = R"(
import json, sys, xml.etree.ElementTree as tree
graph = json.load(open(sys.argv[1])); root = tree.parse(sys.argv[2]).getroot()
space = '{http://graphml.graphdrawing.org/xmlns}'
keys = {key.get('id'): (key.get('attr.name'), key.get('attr.type')) for key in root.iter(space + 'key')}
def data(item):
    out = {}
    for one in item.findall(space + 'data'):
        name, kind = keys[one.get('key')]
        out[name] = {'double': float, 'long': int, 'string': str, 'boolean': lambda text: text == 'true'}[kind](one.text)
    return out
nodes = {node.get('id'): data(node) for node in root.iter(space + 'node')}
edges = [{'source': edge.get('source'), 'target': edge.get('target'), **data(edge)} for edge in root.iter(space + 'edge')]
there = lambda item: {name: value for name, value in item.items() if value is not None}
assert nodes == {node['id']: {k: v for k, v in node.items() if k != 'id'} for node in graph['nodes']}
assert edges == [there(edge) for edge in graph['edges']]
assert all(edge['source'] in nodes and edge['target'] in nodes for edge in edges)
print(len(nodes), sum(edge['kind'] == 'route' for edge in edges), sum(edge.get('kept', False) for edge in edges))
)";

class CircuitGraphs : public ::testing::TestWithParam<model::AttnResSource> {};

TEST_P(CircuitGraphs, ReadTheSameInBothFormats) {
  const data::TempDir dir;
  const CircuitRecord record = testing::filled_circuits({.baselines = 0}, GetParam());
  const CircuitRow& row = record.rows[0];
  data::write_text_atomically(dir / "read.py", reader);
  data::write_text_atomically(dir / "g.json", circuit_json(row, record.identity));
  data::write_text_atomically(dir / "g.graphml", circuit_graphml(row, record.identity));
  const Result result = shell("cd " + dir.path().string() + " && python3 read.py g.json g.graphml");
  const CircuitGraph graph = graph_of(record.identity.plan(), circuit_edges(record.identity.plan(), Ablation::mean));
  EXPECT_EQ(result.status, 0) << result.output;
  const std::size_t nodes = graph.sublayers.size() + graph.sources.size();  // the embedding is a source
  EXPECT_EQ(result.output,
            std::to_string(nodes) + " " + std::to_string(row.kept.size()) + " " + std::to_string(row.size()) + "\n");
}

INSTANTIATE_TEST_SUITE_P(Modes, CircuitGraphs,
                         ::testing::Values(model::AttnResSource::block_sum, model::AttnResSource::cumulative));

}  // namespace
}  // namespace routescope::analysis
