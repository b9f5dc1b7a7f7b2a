#include "eventstream/encoder.hpp"

#include <aws/common/array_list.h>
#include <aws/common/byte_buf.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "crt/error.hpp"

namespace kumo::eventstream {
namespace {

[[noreturn]] void refuse(const std::string& what, std::size_t size, std::size_t limit) {
  throw std::invalid_argument(what + " of " + std::to_string(size) + " bytes: the limit is " +
                              std::to_string(limit));
}

// The library's form of a header; it borrows the value of bytes and strings.
aws_event_stream_header_value_pair to_library(const Header& header) {
  if (header.name.empty()) throw std::invalid_argument("a header needs a name");
  if (header.name.size() > kMaxName) refuse("a header's name", header.name.size(), kMaxName);
  aws_event_stream_header_value_pair pair{};
  pair.header_name_len = static_cast<std::uint8_t>(header.name.size());
  std::memcpy(pair.header_name, header.name.data(), header.name.size());
  pair.header_value_type = static_cast<aws_event_stream_header_value_type>(header.type);
  if (has_length(header.type)) {
    if (header.value.size() > kMaxValue) {
      refuse("header '" + header.name + "': a value", header.value.size(), kMaxValue);
    }
    pair.header_value.variable_len_val =
        reinterpret_cast<std::uint8_t*>(const_cast<char*>(header.value.data()));
  } else {
    if (header.value.size() != fixed_size(header.type)) {
      throw std::invalid_argument("header '" + header.name + "': a value of the wrong size");
    }
    std::memcpy(pair.header_value.static_val, header.value.data(), header.value.size());
  }
  pair.header_value_len = static_cast<std::uint16_t>(header.value.size());
  return pair;
}

}  // namespace

EncodedMessage::EncodedMessage(const std::vector<Header>& headers, std::string_view payload) {
  std::size_t size = 0;
  std::vector<aws_event_stream_header_value_pair> pairs;
  pairs.reserve(headers.size());
  for (const Header& header : headers) {
    pairs.push_back(to_library(header));
    size += 2 + header.name.size() + (has_length(header.type) ? 2U : 0U) + header.value.size();
  }
  if (size > kMaxHeaders) refuse("headers", size, kMaxHeaders);
  const std::size_t total = kPrelude + size + payload.size() + kTrailer;
  if (total > kMaxMessage) refuse("a message", total, kMaxMessage);

  aws_array_list list{};
  if (!pairs.empty()) {
    aws_array_list_init_static_from_initialized(&list, pairs.data(), pairs.size(),
                                                sizeof(pairs.front()));
  }
  const aws_byte_buf body = aws_byte_buf_from_array(payload.data(), payload.size());
  crt::check(aws_event_stream_message_init(&message_, aws_default_allocator(),
                                           pairs.empty() ? nullptr : &list, &body),
             "encoding an event-stream message");
}

}  // namespace kumo::eventstream
