#include "http/frame.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

#include "checksum/crc32c.hpp"

namespace kumo::http {
namespace {

constexpr std::string_view kTrailer = "\r\n0\r\nx-amz-checksum-crc32c:";
constexpr std::string_view kEnd = "\r\n\r\n";
constexpr std::size_t kBase64 = 8;  // of four bytes

std::string head_of(std::size_t content) {
  std::array<char, 16> digits{};
  char* end = std::to_chars(digits.data(), digits.data() + digits.size(), content, 16).ptr;
  return std::string(digits.data(), end) + "\r\n";
}

}  // namespace

Frame::Frame(std::size_t content)
    : head_(head_of(content)),
      content_(content),
      total_(head_.size() + content + kTrailer.size() + kBase64 + kEnd.size()) {}

void Frame::pass(const std::uint8_t* data, std::size_t size) noexcept {
  crc32c_ = checksum::crc32c(data, size, crc32c_);
}

std::size_t Frame::copy(std::size_t position, std::uint8_t* into, std::size_t capacity) {
  std::string_view from = head_;
  if (position >= head_.size()) {
    const std::size_t behind = head_.size() + content_;
    if (position < behind) return 0;
    if (tail_.empty()) tail_.append(kTrailer).append(checksum::crc32c_base64(crc32c_)).append(kEnd);
    from = tail_;
    position -= behind;
  }
  const std::size_t size = std::min(capacity, from.size() - position);
  std::memcpy(into, from.data() + position, size);
  return size;
}

}  // namespace kumo::http
