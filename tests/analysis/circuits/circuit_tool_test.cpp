// routescope-analyze circuit from the outside, and the graphs that it exports.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>

#include "analysis/circuits/circuit_file.h"
#include "analysis/circuits/graph.h"
#include "analysis/report/study.h"
#include "data/base/files.h"
#include "tests/analysis/analyze_tool.h"
#include "tests/analysis/circuits/filled_circuits.h"
#include "tests/data/base/temp_dir.h"
#include "tests/places.h"

namespace routescope::analysis {
namespace {

class CircuitTool : public AnalyzeTool {
 protected:
  void SetUp() override { make("run", {0, 4}); }
  ToolResult circuit(const std::string& arguments, const std::string& launcher = " ") const {
    return run("circuit " + arguments, launcher);
  }
  void expect_circuit_refused(const std::string& arguments, int status, const std::string& part) const {
    expect_refused("circuit " + arguments, status, part);
  }
};

TEST_F(CircuitTool, MeasuresStepsOnceAndExportsTheirGraphs) {
  const ToolResult first = circuit("--run run --step all --baselines 1 --export graphs");
  EXPECT_EQ(first.status, 0) << first.output;
  EXPECT_NE(first.output.find("run/circuit.h5: 2 rows"), std::string::npos) << first.output;
  for (const char* file : {"circuit-0.json", "circuit-0.graphml", "circuit-4.json", "circuit-4.graphml"})
    EXPECT_TRUE(std::filesystem::exists(dir / "graphs" / file)) << file;
  const ToolResult again = circuit("--run run --step 4 --baselines 1");
  EXPECT_NE(again.output.find("step 4 is there already"), std::string::npos) << again.output;
  const ToolResult other = circuit("--run run --step 4 --baselines 2");
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.output.find("attribute settings: found"), std::string::npos) << other.output;
  EXPECT_EQ(load_circuits(dir / "run/circuit.h5").rows.size(), 2U);
}

TEST_F(CircuitTool, RefusesWhatCannotBeMeasured) {
  expect_circuit_refused("", 2, "expected either --run or --model");
  expect_circuit_refused("--model run/checkpoints/step-00000004", 2, "--model needs --tokens");
  expect_circuit_refused("--run run --sequences 1", 1, "found 1 document, expected at least 2");
  expect_circuit_refused("--run run --faithfulness 2", 2, "--faithfulness");
  expect_circuit_refused("--run run --ablation mask", 2, "--ablation");
  testing::make_run(dir / "plain", testing::micro_config(model::Residual::standard, model::AttnResSource::block_sum),
                    {4});
  expect_circuit_refused("--run plain", 1, "it has no reads to probe");
}

TEST_F(CircuitTool, MeasuresTasksInFilesOfTheirOwn) {
  std::string prompts;
  for (int q = 0; q < 8; ++q)
    prompts += "{\"clean\": [" + std::to_string(q) + ", 3, 5], \"answer\": " + std::to_string(q + 1) + "}\n";
  data::write_text_atomically(dir / "next.jsonl", prompts);
  const ToolResult result = circuit("--run run --task next.jsonl --baselines 1");
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("4 prompts score, 4 others report"), std::string::npos) << result.output;
  const CircuitRecord record = load_circuits(dir / "run/circuit-task-next.h5");
  EXPECT_EQ(record.identity.tokens.answers.size(), 8U);
  const StudyCircuits circuits = load_study_circuits({dir / "run"});
  ASSERT_EQ(circuits[0].size(), 1U);
  EXPECT_EQ(circuits[0][0].task, "next");
  expect_circuit_refused("--run run --task next.jsonl --tokens run/routing.h5", 2, "--task: found --tokens beside it");
}

#ifdef ROUTESCOPE_MPIEXEC
// 6 sequences on 3 ranks: the same edges and losses as in a process alone, to the rounding of its larger batch.
TEST_F(CircuitTool, RanksShareTheSequences) {
  const std::string ranks =
      " OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " ROUTESCOPE_MPIEXEC " --oversubscribe -n 3 ";
  for (const std::string score : {"exact", "estimate"}) {
    const std::string arguments = "--run run --step all --baselines 1 --score " + score + " --out " + score;
    const ToolResult alone = circuit(arguments + "-alone.h5"), shared = circuit(arguments + "-ranks.h5", ranks);
    EXPECT_EQ(alone.status, 0) << alone.output;
    EXPECT_EQ(shared.status, 0) << shared.output;
    const std::string end = score + "-ranks.h5: 2 rows";
    EXPECT_NE(shared.output.find(end), std::string::npos) << shared.output;
    EXPECT_EQ(shared.output.find(end), shared.output.rfind(end)) << "said once";
    const CircuitRecord one = load_circuits(dir / (score + "-alone.h5")),
                        many = load_circuits(dir / (score + "-ranks.h5"));
    ASSERT_EQ(many.rows.size(), 2U);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_NEAR(one.rows[i].nll, many.rows[i].nll, 1e-5);
      for (std::size_t e = 0; e < one.rows[i].kept.size(); ++e)
        EXPECT_NEAR(one.rows[i].score[e].value, many.rows[i].score[e].value, 1e-5) << e;
      EXPECT_NEAR(one.rows[i].none.value, many.rows[i].none.value, 1e-5);
    }
  }
}
#endif

// Two programs, each with a step of its own.
TEST_F(CircuitTool, ProgramsShareAFile) {
  const ToolResult both =
      run("circuit --run run --step 0 --baselines 1 & cd " + dir.path().string() + "; " + testing::bin_dir() +
          "/routescope-analyze circuit --run run --step 4 --baselines 1; wait");
  EXPECT_EQ(both.status, 0) << both.output;
  EXPECT_EQ(load_circuits(dir / "run/circuit.h5").rows.size(), 2U) << both.output;
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
  const std::string command = "cd " + dir.path().string() + " && python3 read.py g.json g.graphml 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> buffer;
  const std::string output(buffer.data(), std::fread(buffer.data(), 1, buffer.size(), pipe));
  EXPECT_EQ(::pclose(pipe), 0) << output;
  const CircuitGraph graph = graph_of(record.identity.plan(), circuit_edges(record.identity.plan(), Ablation::mean));
  const std::size_t nodes = graph.sublayers.size() + graph.sources.size();  // the embedding is a source
  EXPECT_EQ(output,
            std::to_string(nodes) + " " + std::to_string(row.kept.size()) + " " + std::to_string(row.size()) + "\n");
}

INSTANTIATE_TEST_SUITE_P(Modes, CircuitGraphs,
                         ::testing::Values(model::AttnResSource::block_sum, model::AttnResSource::cumulative));

}  // namespace
}  // namespace routescope::analysis
