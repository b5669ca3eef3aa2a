#include "analysis/report/token_text.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "data/base/error.h"
#include "data/base/files.h"
#include "data/base/json.h"
#include "data/tokens/tokenizer.h"

namespace routescope::analysis {
namespace {

using nlohmann::json;

/// The bytes of a character from its first one; 0: none begins like this.
std::size_t utf8_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first < 0xE0) return 2;
  if (first >= 0xE0 && first < 0xF0) return 3;
  if (first >= 0xF0 && first < 0xF5) return 4;
  return 0;
}

/// The code point at `at`, which moves behind it; nothing where there is no whole character.
std::optional<char32_t> next_character(const std::string& text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const std::size_t length = utf8_length(byte(at));
  if (length == 0 || at + length > text.size()) return std::nullopt;
  char32_t code = length == 1 ? byte(at) : byte(at) & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0U) != 0x80U) return std::nullopt;
    code = (code << 6U) | (byte(at + i) & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  if (overlong || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return std::nullopt;
  at += length;
  return code;
}

/// Bytes that are no part of a whole character are written as numbers.
std::string printable(const std::string& bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t begin = at;
    if (next_character(bytes, at)) {
      out += bytes.substr(begin, at - begin);
    } else {
      out += fmt::format("\\x{:02X}", static_cast<unsigned char>(bytes[at++]));
    }
  }
  return out;
}

/// Byte-level vocabularies write a byte that is no printable Latin-1 character as the next free one from U+0100 on.
std::unordered_map<char32_t, char> byte_alphabet() {
  std::unordered_map<char32_t, char> out;
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool itself = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    out.emplace(itself ? static_cast<char32_t>(byte) : next++, static_cast<char>(byte));
  }
  return out;
}

std::string from_byte_alphabet(const std::string& token, const std::unordered_map<char32_t, char>& alphabet) {
  std::string out;
  for (std::size_t at = 0; at < token.size();) {
    const auto code = next_character(token, at);
    const auto found = code ? alphabet.find(*code) : alphabet.end();
    if (found == alphabet.end()) return token;  // not written in it: a token that was added by name
    out += found->second;
  }
  return out;
}

/// SentencePiece writes a space as U+2581 and a byte as <0x0A>.
std::string from_pieces(std::string token) {
  if (token.size() == 6 && token.starts_with("<0x") && token.back() == '>' &&
      token.find_first_not_of("0123456789ABCDEFabcdef", 3) == 5) {
    return std::string(1, static_cast<char>(std::stoi(token.substr(3, 2), nullptr, 16)));
  }
  for (std::size_t at = 0; (at = token.find("\u2581", at)) != std::string::npos;) token.replace(at++, 3, " ");
  return token;
}

bool mentions_byte_level(const json& part) {
  if (!part.is_structured()) return false;
  if (part.is_object() && part.contains("type") && part.at("type") == "ByteLevel") return true;
  for (const json& inner : part) {
    if (mentions_byte_level(inner)) return true;
  }
  return false;
}

}  // namespace

TokenText TokenText::parse(const std::string& tokenizer_json, const std::string& where) {
  TokenText out;
  const json tokenizer = data::parse_json(tokenizer_json, where);
  const json& vocabulary = data::json_member(data::json_member(tokenizer, "model", where), "vocab", where + ": model");
  const std::string at = where + ": model: vocab";
  const bool byte_level = mentions_byte_level(tokenizer.value("pre_tokenizer", json())) ||
                          mentions_byte_level(tokenizer.value("decoder", json()));
  const auto alphabet = byte_alphabet();
  const auto add = [&](std::int64_t id, const std::string& token) {
    out.text_[id] = printable(byte_level ? from_byte_alphabet(token, alphabet) : from_pieces(token));
  };
  if (vocabulary.is_object()) {
    for (const auto& [token, id] : vocabulary.items())
      add(data::json_value<std::int64_t>(id, at + ": " + data::shortened(token)), token);
  } else {
    std::int64_t id = 0;  // a list of [token, score], by id
    for (const json& entry : data::json_value<std::vector<json>>(vocabulary, at)) {
      if (!entry.is_array() || entry.empty())
        throw data::Error("{}[{}]: found {}, expected a token and its score", at, id, data::excerpt(entry));
      add(id, data::json_value<std::string>(entry[0], fmt::format("{}[{}]", at, id)));
      ++id;
    }
  }
  const json added = tokenizer.value("added_tokens", json());
  if (added.is_null()) return out;
  for (const json& token : data::json_value<std::vector<json>>(added, where + ": added_tokens"))
    out.text_[data::json_member<std::int64_t>(token, "id", where + ": added_tokens")] =
        data::json_member<std::string>(token, "content", where + ": added_tokens");
  return out;
}

TokenText TokenText::load(const std::filesystem::path& tokenizer_json) {
  return parse(data::read_text(tokenizer_json), tokenizer_json.string());
}

TokenText TokenText::builtin(std::int64_t vocab_size) {
  TokenText out;
  out.bytes_ = vocab_size == data::byte_tokenizer::vocab_size;
  return out;
}

std::string TokenText::operator()(std::int64_t id) const {
  if (const auto found = text_.find(id); found != text_.end()) return found->second;
  if (bytes_ && id >= 0 && id < data::byte_tokenizer::end_of_document)
    return printable(std::string(1, static_cast<char>(id)));
  return text_.empty() && !bytes_ ? fmt::format("{} ", id) : fmt::format("<{}>", id);
}

}  // namespace routescope::analysis
