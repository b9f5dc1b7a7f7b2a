#include "eventstream/checks.hpp"

#include <cstdint>
#include <string>

#include "checksum/crc.hpp"
#include "eventstream/format.hpp"

namespace kumo::eventstream {
namespace {

std::uint32_t load(std::string_view bytes, std::size_t at, std::size_t size) noexcept {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < size; ++i) {
    value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  }
  return value;
}

// Takes bytes off the front of the headers; never reads past their end.
class Block {
 public:
  explicit Block(std::string_view bytes) noexcept : bytes_(bytes) {}

  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }

  std::size_t number(std::size_t size, const char* what) {
    const std::string_view taken = bytes_;
    skip(size, what);
    return load(taken, 0, size);
  }

  void skip(std::size_t size, const char* what) {
    if (size > bytes_.size()) {
      throw Damage(std::string(what) + " runs past the end of the headers");
    }
    bytes_.remove_prefix(size);
  }

 private:
  std::string_view bytes_;
};

void check_headers(std::string_view headers) {
  Block block(headers);
  while (!block.empty()) {
    const std::size_t name = block.number(1, "a header");
    if (name == 0) throw Damage("a header has no name");
    if (name > kMaxName) {
      throw Damage("a header's name has " + std::to_string(name) +
                   " bytes; this build's aws-c-event-stream takes up to " +
                   std::to_string(kMaxName));
    }
    block.skip(name, "a header's name");
    const std::size_t number = block.number(1, "a header's type");
    if (number >= kHeaderTypes) {
      throw Damage("a header is of type " + std::to_string(number) + ", which does not exist");
    }
    const auto type = static_cast<HeaderType>(number);
    if (!has_length(type)) {
      block.skip(fixed_size(type), "a header's value");
      continue;
    }
    const std::size_t value = block.number(2, "the length of a header's value");
    if (value > kMaxValue) {
      throw Damage("a header's value has " + std::to_string(value) + " bytes; the limit is " +
                   std::to_string(kMaxValue));
    }
    block.skip(value, "a header's value");
  }
}

}  // namespace

Prelude check_prelude(std::string_view bytes) {
  if (load(bytes, 8, 4) != checksum::crc32(bytes.data(), 8)) {
    throw Damage("the checksum of a message's lengths does not match");
  }
  const Prelude prelude{load(bytes, 0, 4), load(bytes, 4, 4)};
  if (prelude.total < kPrelude + kTrailer) {
    throw Damage("a message is said to have " + std::to_string(prelude.total) +
                 " bytes; the smallest has " + std::to_string(kPrelude + kTrailer));
  }
  if (prelude.total > kMaxMessage) {
    throw Damage("a message is said to have " + std::to_string(prelude.total) +
                 " bytes; the limit is " + std::to_string(kMaxMessage));
  }
  if (prelude.headers > kMaxHeaders) {
    throw Damage("a message is said to have " + std::to_string(prelude.headers) +
                 " bytes of headers; the limit is " + std::to_string(kMaxHeaders));
  }
  if (prelude.headers > prelude.total - kPrelude - kTrailer) {
    throw Damage("a message of " + std::to_string(prelude.total) + " bytes is said to have " +
                 std::to_string(prelude.headers) + " bytes of headers, which do not fit in it");
  }
  return prelude;
}

void check_message(const Prelude& prelude, std::string_view message) {
  const std::size_t body = prelude.total - kTrailer;
  if (load(message, body, 4) != checksum::crc32(message.data(), body)) {
    throw Damage("a message's checksum does not match");
  }
  check_headers(message.substr(kPrelude, prelude.headers));
}

}  // namespace kumo::eventstream
