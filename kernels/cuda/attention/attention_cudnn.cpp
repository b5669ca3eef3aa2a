// CUDA: attention by cuDNN's fused kernels (its graph interface, "SDPA"): causal softmax(q k^T / sqrt(head_dim)) v on
// the packed qkv [tokens, (heads + 2 kv_heads) head_dim] in bf16, of which q, k and v are strided views; grouped-query.
// cuDNN's "stats" [batch, heads, seq_len, 1] are the natural log-sum-exp of the scaled logits, which is this project's
// lse.
//
// The backward pass is set to be deterministic. cuDNN then keeps the gradients of all logits of a call in its
// workspace, 2 batch heads seq_len^2 bytes (rounded up to tiles), and sums dq from there. To bound this size, a call
// takes only as many sequences as fit kLogitGradients. If one sequence exceeds it, the built-in kernels are used.
//
// A graph is made once for each shape and kept. Its plan is the first that cuDNN's heuristic gives; nothing is timed.
// This file has not run on a device yet.
#include "kernels/cuda/attention/attention_cudnn.h"

#include <cuda_runtime.h>
#include <cudnn_frontend.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "kernels/attention_kernel.h"
#include "kernels/cuda/driver.h"

namespace routescope::kernels::cuda {

namespace {

namespace fe = cudnn_frontend;
using fe::graph::Graph;
using fe::graph::Tensor_attributes;

constexpr std::int64_t kLogitGradients = std::int64_t{1} << 30;  // bytes of a call's workspace

enum Name : std::int64_t { kQ = 1, kK, kV, kOut, kStats, kDOut, kDQ, kDK, kDV };
using Pointers = std::unordered_map<std::int64_t, void*>;

enum class Pass { forward, backward };

/// The first line of the error; empty for success.
std::string message_of(fe::error_t error) {
  if (error.is_good()) return {};
  const std::string message = error.get_message();
  return message.empty() ? "not supported" : message.substr(0, message.find('\n'));
}
void check(const fe::error_t& error, const char* what) {
  if (error.is_bad()) throw std::runtime_error("cuDNN: " + std::string(what) + ": " + message_of(error));
}
void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS)
    throw std::runtime_error("cuDNN: " + std::string(what) + ": " + cudnnGetErrorString(status));
}

int current_device() {
  int device = 0;
  const cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: no device: ") + cudaGetErrorString(status));
  return device;
}

/// The graphs and handles of the process. One call uses them at a time.
struct Graphs {
  using Key = std::tuple<int, Pass, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  struct Entry {
    std::unique_ptr<Graph> graph;
    std::size_t workspace = 0;
    std::string refusal;  // cuDNN's, if it cannot run this
  };
  std::mutex mutex;
  std::map<int, cudnnHandle_t> handles;
  std::map<Key, Entry> entries;
};
Graphs& graphs() {
  static auto* all = new Graphs;  // never destroyed: cuDNN may be unloaded before static objects
  return *all;
}

/// The handle of a device; `graphs().mutex` is held.
cudnnHandle_t handle_for(int device) {
  cudnnHandle_t& handle = graphs().handles[device];
  if (!handle) check(cudnnCreate(&handle), "starting");
  return handle;
}

/// Describes one head's view of packed rows: [batch, heads, seq_len, head_dim] whose tokens lie `width` elements apart.
Tensor_attributes& describe(Tensor_attributes& tensor, Name name, const AttentionShape& shape, std::int64_t heads,
                            std::int64_t width) {
  return tensor.set_uid(name)
      .set_dim({shape.batch, heads, shape.seq_len, shape.head_dim})
      .set_stride({shape.seq_len * width, shape.head_dim, width, 1});
}

/// The graph of one pass, not yet built.
std::unique_ptr<Graph> make_graph(Pass pass, const AttentionShape& shape) {
  auto graph = std::make_unique<Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const std::int64_t width = shape.packed_width(), out_width = shape.heads * shape.head_dim;
  const auto input = [&](Name name, std::int64_t heads, std::int64_t row) {
    Tensor_attributes tensor;
    return graph->tensor(describe(tensor, name, shape, heads, row));
  };
  const auto output = [&](const auto& tensor, Name name, std::int64_t heads, std::int64_t row) {
    describe(*tensor, name, shape, heads, row).set_output(true);
  };
  const auto q = input(kQ, shape.heads, width), k = input(kK, shape.kv_heads, width),
             v = input(kV, shape.kv_heads, width);
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(shape.head_dim)));
  const std::vector<std::int64_t> stats_shape{shape.batch, shape.heads, shape.seq_len, 1};
  const std::vector<std::int64_t> stats_stride{shape.heads * shape.seq_len, shape.seq_len, 1, 1};
  if (pass == Pass::forward) {
    const auto [out, stats] = graph->sdpa(q, k, v,
                                          fe::graph::SDPA_attributes()
                                              .set_name("attention_forward")
                                              .set_generate_stats(true)
                                              .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
                                              .set_diagonal_band_right_bound(0)
                                              .set_attn_scale(scale));
    output(out, kOut, shape.heads, out_width);
    stats->set_uid(kStats)
        .set_dim(stats_shape)
        .set_stride(stats_stride)
        .set_output(true)
        .set_data_type(fe::DataType_t::FLOAT);
  } else {
    const auto out = input(kOut, shape.heads, out_width), dout = input(kDOut, shape.heads, out_width);
    const auto stats = graph->tensor(Tensor_attributes()
                                         .set_uid(kStats)
                                         .set_dim(stats_shape)
                                         .set_stride(stats_stride)
                                         .set_data_type(fe::DataType_t::FLOAT));
    const auto [dq, dk, dv] = graph->sdpa_backward(q, k, v, out, dout, stats,
                                                   fe::graph::SDPA_backward_attributes()
                                                       .set_name("attention_backward")
                                                       .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
                                                       .set_diagonal_band_right_bound(0)
                                                       .set_deterministic_algorithm(true)
                                                       .set_attn_scale(scale));
    output(dq, kDQ, shape.heads, width);
    output(dk, kDK, shape.kv_heads, width);
    output(dv, kDV, shape.kv_heads, width);
  }
  return graph;
}

/// The built graph of a pass on the current device; `graphs().mutex` is held.
const Graphs::Entry& graph_for(Pass pass, const AttentionShape& shape) {
  const int device = current_device();
  const Graphs::Key key{device, pass, shape.batch, shape.seq_len, shape.heads, shape.kv_heads, shape.head_dim};
  const auto found = graphs().entries.find(key);
  if (found != graphs().entries.end()) return found->second;
  Graphs::Entry entry;
  entry.graph = make_graph(pass, shape);
  entry.refusal =
      message_of(entry.graph->build(handle_for(device), {fe::HeurMode_t::A}, fe::BuildPlanPolicy_t::HEURISTICS_CHOICE));
  if (entry.refusal.empty()) {
    std::int64_t bytes = 0;
    check(entry.graph->get_workspace_size(bytes), "asking for a graph's workspace");
    entry.workspace = static_cast<std::size_t>(bytes);
  }
  return graphs().entries.emplace(key, std::move(entry)).first->second;
}

/// Bytes for the gradients of one sequence's logits.
std::int64_t logit_gradients(const AttentionShape& shape) {
  const std::int64_t rows = (shape.seq_len + 127) / 128 * 128;
  return 2 * shape.heads * rows * rows;
}

/// The same shape with as many sequences as one call of a pass takes.
AttentionShape one_call(Pass pass, AttentionShape shape) {
  if (pass == Pass::backward)
    shape.batch = std::min(shape.batch, std::max<std::int64_t>(1, kLogitGradients / logit_gradients(shape)));
  return shape;
}

/// Runs a pass over all sequences, a few at a time; pointers(first sequence) names the tensors of a call.
template <class PointersOf>
void run(Pass pass, AttentionShape shape, const Stream& stream, const PointersOf& pointers) {
  const std::lock_guard lock(graphs().mutex);
  const cudnnHandle_t handle = handle_for(current_device());
  check(cudnnSetStream(handle, static_cast<cudaStream_t>(stream.handle)), "choosing a stream");
  const std::int64_t sequences = shape.batch, most = one_call(pass, shape).batch;
  for (std::int64_t first = 0; first < sequences; first += most) {
    shape.batch = std::min(most, sequences - first);
    const Graphs::Entry& entry = graph_for(pass, shape);
    if (!entry.refusal.empty()) throw std::runtime_error("cuDNN: attention: " + entry.refusal);
    // 256 bytes more than cuDNN asks for, to begin on a multiple of that.
    auto workspace = reinterpret_cast<std::uintptr_t>(Scratch(stream).take<std::byte>(entry.workspace + 256));
    workspace = (workspace + 255) / 256 * 256;
    Pointers at = pointers(first);
    check(entry.graph->execute(handle, at, reinterpret_cast<void*>(workspace)), "attention");
  }
}

/// The address of an element of a tensor.
std::byte* element(const Tensor& t, std::int64_t index) {
  return static_cast<std::byte*>(t.data) + index * static_cast<std::int64_t>(size_of(t.dtype));
}

/// Adds q, k and v of the packed rows from a sequence on.
void add_packed(Pointers& pointers, const Tensor& packed, const AttentionShape& shape, std::int64_t first, Name q,
                Name k, Name v) {
  const std::int64_t at = first * shape.seq_len * shape.packed_width();
  pointers[q] = element(packed, at);
  pointers[k] = element(packed, at + shape.heads * shape.head_dim);
  pointers[v] = element(packed, at + (shape.heads + shape.kv_heads) * shape.head_dim);
}

}  // namespace

std::string attention_cudnn_refuses(const Tensor& qkv, const AttentionShape& shape) {
  if (qkv.dtype != DType::bf16) return "expected bf16";
  if (shape.head_dim % 8 != 0 || shape.head_dim > 128)
    return "head_dim " + std::to_string(shape.head_dim) + ", expected a multiple of 8 up to 128";
  if (shape.seq_len < 2) return "sequences of one token";
  if (reinterpret_cast<std::uintptr_t>(qkv.data) % 16 != 0) return "a tensor that does not begin on 16 bytes";
  if (logit_gradients(shape) > kLogitGradients)
    return "seq_len " + std::to_string(shape.seq_len) + " with " + std::to_string(shape.heads) +
           " heads, whose deterministic gradient would take more than 1 GiB of workspace a sequence";
  const std::lock_guard lock(graphs().mutex);
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    const Graphs::Entry& entry = graph_for(pass, one_call(pass, shape));
    if (!entry.refusal.empty()) return entry.refusal;
  }
  return {};
}

void attention_cudnn_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape, const Stream& stream) {
  run(Pass::forward, shape, stream, [&](std::int64_t first) {
    Pointers pointers;
    add_packed(pointers, qkv, shape, first, kQ, kK, kV);
    pointers[kOut] = element(out, first * shape.seq_len * shape.heads * shape.head_dim);
    pointers[kStats] = element(lse, first * shape.heads * shape.seq_len);
    return pointers;
  });
}

void attention_cudnn_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape,
                              const Stream& stream) {
  run(Pass::backward, shape, stream, [&](std::int64_t first) {
    Pointers pointers;
    add_packed(pointers, qkv, shape, first, kQ, kK, kV);
    add_packed(pointers, dqkv, shape, first, kDQ, kDK, kDV);
    pointers[kOut] = element(out, first * shape.seq_len * shape.heads * shape.head_dim);
    pointers[kDOut] = element(dout, first * shape.seq_len * shape.heads * shape.head_dim);
    pointers[kStats] = element(lse, first * shape.heads * shape.seq_len);
    return pointers;
  });
}

std::size_t attention_cudnn_workspace(const AttentionShape& shape) {
  if (shape.tokens() == 0 || attention_kernel() == AttentionKernel::builtin) return 0;
  const AttentionShape call = one_call(Pass::backward, shape);
  if (!driver::available()) {
    // The gradients of the logits, f32 sums of dq and of each query head's dk and dv, and a few statistics.
    const std::int64_t rows = call.batch * call.heads * ((call.seq_len + 127) / 128 * 128);
    const std::int64_t bytes = call.batch * logit_gradients(call) + 4 * rows * (3 * call.head_dim + 8);
    return logit_gradients(shape) > kLogitGradients ? 0 : static_cast<std::size_t>(bytes);
  }
  const Tensor any_address(nullptr, DType::bf16, Device::cuda, {1});
  if (!attention_cudnn_refuses(any_address, shape).empty()) return 0;
  const std::lock_guard lock(graphs().mutex);
  std::size_t bytes = std::max(graph_for(Pass::forward, shape).workspace, graph_for(Pass::backward, call).workspace);
  // The last call takes the remaining sequences.
  AttentionShape rest = shape;
  rest.batch = shape.batch % call.batch;
  if (rest.batch > 0) bytes = std::max(bytes, graph_for(Pass::backward, rest).workspace);
  return bytes + 256;
}

}  // namespace routescope::kernels::cuda
