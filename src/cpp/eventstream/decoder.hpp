#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eventstream/checks.hpp"
#include "eventstream/format.hpp"

namespace kumo::eventstream {

struct Message {
  std::uint64_t offset = 0;  // of its first byte in the stream
  std::vector<Header> headers;
  std::string_view payload;  // in `bytes`
  std::vector<char> bytes;   // the whole of it
};

// What a piece of the stream brought.
struct Fed {
  std::vector<Message> messages;
  std::optional<std::string> damage;  // what is wrong with the message behind them
};

// Splits a stream of messages that comes in pieces of any size. It holds no more than twice of what
// it was given of one message, whatever that message says of its length. After damage nothing more
// can be read, as where the next message begins is not known.
class Decoder {
 public:
  // `piece` may change while it is read (memory lent by others): each byte is read once.
  [[nodiscard]] Fed feed(std::string_view piece);

  // Bytes of a message whose end has not come.
  [[nodiscard]] std::size_t pending() const noexcept { return buffer_.size(); }
  // Where in the stream the message begins that is being read.
  [[nodiscard]] std::uint64_t offset() const noexcept { return offset_; }

 private:
  // Moves bytes from the piece until the buffer has `size`; false if there were not enough.
  bool fill(std::size_t size, std::string_view& piece);

  std::uint64_t offset_ = 0;
  std::vector<char> buffer_;
  std::optional<Prelude> prelude_;
};

}  // namespace kumo::eventstream
