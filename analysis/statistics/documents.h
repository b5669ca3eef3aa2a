// Sequences of one document resemble each other: they are no independent sample. These functions turn values of
// sequences into values of documents, which are, so that any interval or test of a mean accounts for documents.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace routescope::analysis {

/// One value for each document, by first appearance: u_d = mean + (D / n) * (sum over i in d of (x_i - mean)), with n
/// sequences of D documents. The mean of u is the mean of the sequences. Its standard error s_u / sqrt(D) is the
/// linearised one of a mean over clusters, sqrt(D / (D - 1) * sum_d (sum over i in d of (x_i - mean))^2) / n (Cochran,
/// Sampling Techniques, 1977, 6.3; Liang & Zeger 1986). It assumes that documents are drawn independently, and nothing
/// about sequences within one. An interval of u wants 16 documents or more (analysis/README.md has coverages).
/// values [n]; documents [>= n]: labels, empty if each sequence is a document of its own. If each is, u are the values
/// themselves. All NaN if a value is NaN. Throws std::invalid_argument for fewer labels than values.
std::vector<double> document_values(std::span<const double> values, std::span<const std::int64_t> documents);

/// For tests at several looks: z_d = (D / n) * (sum over i in d of x_i) of each document that is complete within
/// `values`, where n = total_sequences and D = total_documents are fixed beforehand. Then what comes later changes no
/// value already seen, and if documents are drawn independently and have mean zero, the sums of z over looks are a
/// martingale. Over all documents z has the mean of the sequences.
/// documents [>= the number of values]: the sequences of one document are consecutive; empty as above. The last
/// document is complete if another follows it or the labels end with it. All NaN if a value of a complete document is
/// NaN. Throws std::invalid_argument for fewer labels than values.
std::vector<double> document_sums(std::span<const double> values, std::span<const std::int64_t> documents,
                                  std::int64_t total_sequences, std::int64_t total_documents);

/// [sequence] the number of its document, by first appearance. Without labels each sequence is a document of its own.
std::vector<std::size_t> document_numbers(std::span<const std::int64_t> documents, std::size_t sequences);

/// The number of different labels.
std::int64_t count_documents(std::span<const std::int64_t> documents);

}  // namespace routescope::analysis
