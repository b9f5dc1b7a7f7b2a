#pragma once

#include <cstddef>
#include <stdexcept>
#include <string_view>

namespace kumo::eventstream {

// Bytes that are no message of the format, or no longer are.
class Damage : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Prelude {
  std::size_t total;    // bytes of the whole message
  std::size_t headers;  // bytes of its headers
};

// Everything that says how long something is gets checked here, before aws-c-event-stream sees the
// message: its decoder trusted some of it before 0.6.0 (CVE-2026-5190). Both throw Damage.

// `bytes` are the first kPrelude of a message. The lengths are within the limits and fit together.
[[nodiscard]] Prelude check_prelude(std::string_view bytes);

// `message` is whole. Its checksum is right, and its headers fill exactly the room they say.
void check_message(const Prelude& prelude, std::string_view message);

}  // namespace kumo::eventstream
