#include "data/records/probe_documents.h"

#include <algorithm>

#include "data/base/error.h"

namespace routescope::data {

const RecordField& probe_document_field() {
  static const RecordField field{"/probe_document",
                                 {"seq"},
                                 "1",
                                 "number of the document that the sequence comes from; -1: not known",
                                 hdf5::Type::i64};
  return field;
}

std::vector<std::int64_t> stored_documents(const std::vector<std::int64_t>& documents, std::int64_t sequences) {
  return documents.empty() ? std::vector<std::int64_t>(static_cast<std::size_t>(sequences), -1) : documents;
}

std::vector<std::int64_t> read_documents(const hdf5::Dataset& dataset, std::int64_t sequences) {
  if (!dataset.is_integer() || dataset.shape() != hdf5::Shape{sequences})
    throw Error("{}: found {} {}, expected integers [{}], the document of each sequence", dataset.where(),
                dataset.type_name(), hdf5::to_text(dataset.shape()), sequences);
  std::vector<std::int64_t> documents = dataset.read<std::int64_t>();
  if (std::ranges::all_of(documents, [](std::int64_t number) { return number == -1; })) return {};
  for (std::size_t i = 0; i < documents.size(); ++i) {
    if (documents[i] < 0)
      throw Error("{}: sequence {}: found document {}, expected 0 or more, or -1 for every sequence", dataset.where(),
                  i, documents[i]);
  }
  return documents;
}

}  // namespace routescope::data
