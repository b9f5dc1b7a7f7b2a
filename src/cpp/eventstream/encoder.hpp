#pragma once

#include <aws/event-stream/event_stream.h>

#include <string_view>
#include <vector>

#include "eventstream/format.hpp"

namespace kumo::eventstream {

// One message, ready to be sent.
class EncodedMessage {
 public:
  // Copies headers and payload. Throws std::invalid_argument for what the format has no room for.
  EncodedMessage(const std::vector<Header>& headers, std::string_view payload);
  ~EncodedMessage() { aws_event_stream_message_clean_up(&message_); }
  EncodedMessage(const EncodedMessage&) = delete;
  EncodedMessage& operator=(const EncodedMessage&) = delete;

  [[nodiscard]] std::string_view bytes() const noexcept {
    return {reinterpret_cast<const char*>(aws_event_stream_message_buffer(&message_)),
            message_.message_buffer.len};
  }

 private:
  aws_event_stream_message message_{};
};

}  // namespace kumo::eventstream
