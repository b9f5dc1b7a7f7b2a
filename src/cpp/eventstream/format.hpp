#pragma once

#include <aws/event-stream/event_stream.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace kumo::eventstream {

// application/vnd.amazon.event-stream: messages one after another, each of them
//
//   total length, headers' length, CRC-32 of these two     4 bytes each: the prelude
//   headers                                                name, type and value, one after another
//   payload
//   CRC-32 of all before                                   4 bytes: the trailer
//
// with every number in big-endian order.
constexpr std::size_t kPrelude = 12;
constexpr std::size_t kTrailer = 4;

// The format allows a payload of 24 MiB and headers of 128 KiB. aws-c-event-stream has one limit of
// 24 MiB, for the whole message.
constexpr std::size_t kMaxMessage = AWS_EVENT_STREAM_MAX_MESSAGE_SIZE;
constexpr std::size_t kMaxHeaders = std::size_t{128} * 1024;
// 255 in the format; before 0.6.0 the library has room for 127, and its decoder writes past it.
constexpr std::size_t kMaxName = AWS_EVENT_STREAM_HEADER_NAME_LEN_MAX;
constexpr std::size_t kMaxValue = AWS_EVENT_STREAM_HEADER_VALUE_LEN_MAX;
static_assert(kMaxName <= sizeof(aws_event_stream_header_value_pair::header_name));

// The numbers are those of the format.
enum class HeaderType : std::uint8_t {
  kTrue = 0,
  kFalse = 1,
  kByte = 2,
  kInt16 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kBytes = 6,
  kString = 7,
  kTimestamp = 8,  // milliseconds since 1970
  kUuid = 9,
};
constexpr std::uint8_t kHeaderTypes = 10;

struct Header {
  std::string name;
  HeaderType type;
  std::string value;  // as it is sent, without the length of bytes and strings
};

[[nodiscard]] constexpr bool has_length(HeaderType type) noexcept {
  return type == HeaderType::kBytes || type == HeaderType::kString;
}

// Bytes of a value of a type that has no length of its own.
[[nodiscard]] constexpr std::size_t fixed_size(HeaderType type) noexcept {
  switch (type) {
    case HeaderType::kByte:
      return 1;
    case HeaderType::kInt16:
      return 2;
    case HeaderType::kInt32:
      return 4;
    case HeaderType::kInt64:
    case HeaderType::kTimestamp:
      return 8;
    case HeaderType::kUuid:
      return 16;
    default:
      return 0;
  }
}

}  // namespace kumo::eventstream
